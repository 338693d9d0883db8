#include "kernels/cuda/cublas_lt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <bit>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/status_macros.h"
#include "kernels/tensor.h"

namespace weft::cuda {
namespace {

constexpr size_t kWorkspaceBytes = 32 << 20;  // what NVIDIA recommends for Hopper

cudaDataType_t TypeOf(Element element) {
  switch (element) {
    case Element::kF32:
      return CUDA_R_32F;
    case Element::kBF16:
      return CUDA_R_16BF;
    case Element::kF16:
      return CUDA_R_16F;
    case Element::kI8:
      return CUDA_R_8I;
    case Element::kI32:
      return CUDA_R_32I;
  }
  return CUDA_R_32F;
}

absl::Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text = absl::StrCat("cuBLASLt: ", what, ": status ", static_cast<int>(status));
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? absl::UnimplementedError(text) : absl::InternalError(text);
}

// Products that share an algorithm: as many rows of x, to a power of two.
using PlanKey = std::tuple<Element, Element, int64_t, int64_t, int>;

PlanKey KeyOf(const Matmul& matmul) {
  return {matmul.a.element, matmul.d.element, matmul.a.rows, matmul.a.cols,
          std::bit_width(static_cast<uint64_t>(matmul.num_rows() - 1))};
}

struct Plan {
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace_bytes = 0;
};

// What is made for one call; frees nothing, as none of it is allocated.
struct Operands {
  cublasLtMatmulDescOpaque_t matmul;
  cublasLtMatrixLayoutOpaque_t a, b, d;
};

}  // namespace

struct CublasLt::Library {
  void* handle_of_file = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) get_heuristic = nullptr;
  decltype(&cublasLtMatmulDescInit_internal) init_desc = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_desc = nullptr;
  decltype(&cublasLtMatrixLayoutInit_internal) init_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceInit_internal) init_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;

  cublasLtHandle_t handle = nullptr;
  Buffer workspace;
  std::map<PlanKey, Plan> plans;

  ~Library() {
    if (handle != nullptr) destroy(handle);
    if (handle_of_file != nullptr) dlclose(handle_of_file);
  }

  absl::Status Load() {
    const std::string file = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
    handle_of_file = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_of_file == nullptr) return absl::UnavailableError(absl::StrCat("cuBLASLt: ", dlerror()));
    const char* missing = nullptr;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle_of_file, name));
      if (function == nullptr) missing = name;
    };
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(matmul, "cublasLtMatmul");
    find(get_heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(init_desc, "cublasLtMatmulDescInit_internal");
    find(set_desc, "cublasLtMatmulDescSetAttribute");
    find(init_layout, "cublasLtMatrixLayoutInit_internal");
    find(init_preference, "cublasLtMatmulPreferenceInit_internal");
    find(set_preference, "cublasLtMatmulPreferenceSetAttribute");
    if (missing != nullptr) return absl::UnavailableError(absl::StrCat("cuBLASLt: ", file, " has no ", missing));
    if (const cublasStatus_t status = create(&handle); status != CUBLAS_STATUS_SUCCESS) {
      return absl::UnavailableError(absl::StrCat("cuBLASLt: no handle: status ", static_cast<int>(status)));
    }
    void* memory = nullptr;
    RETURN_IF_ERROR(cuda::ToStatus(cudaMalloc(&memory, kWorkspaceBytes), "no device memory left for cuBLASLt"));
    workspace = Buffer(memory, kWorkspaceBytes, [](void* p) { cudaFree(p); });
    return absl::OkStatus();
  }

  absl::Status Describe(const Matmul& product, Operands& operands) const {
    const bool is_integer = product.a.element == Element::kI8;
    const cublasComputeType_t compute = is_integer ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F;
    const cudaDataType_t scale = is_integer ? CUDA_R_32I : CUDA_R_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    RETURN_IF_ERROR(ToStatus(init_desc(&operands.matmul, sizeof operands.matmul, compute, scale), "descriptor"));
    RETURN_IF_ERROR(ToStatus(set_desc(&operands.matmul, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
                             "descriptor"));
    for (const auto& [layout, matrix] :
         {std::pair(&operands.a, product.a), {&operands.b, product.b}, {&operands.d, product.d}}) {
      RETURN_IF_ERROR(
          ToStatus(init_layout(layout, sizeof *layout, TypeOf(matrix.element), static_cast<uint64_t>(matrix.rows),
                               static_cast<uint64_t>(matrix.cols), matrix.ld),
                   "layout"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Plan> PlanFor(const Matmul& product, Operands& operands) {
    if (const auto known = plans.find(KeyOf(product)); known != plans.end()) return known->second;
    cublasLtMatmulPreferenceOpaque_t preference;
    RETURN_IF_ERROR(ToStatus(init_preference(&preference, sizeof preference), "preference"));
    RETURN_IF_ERROR(ToStatus(
        set_preference(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes, sizeof kWorkspaceBytes),
        "preference"));
    cublasLtMatmulHeuristicResult_t best{};
    int num_found = 0;
    RETURN_IF_ERROR(ToStatus(get_heuristic(handle, &operands.matmul, &operands.a, &operands.b, &operands.d, &operands.d,
                                           &preference, 1, &best, &num_found),
                             "heuristic"));
    if (num_found == 0) return absl::UnimplementedError("cuBLASLt: no algorithm");
    return plans.emplace(KeyOf(product), Plan{best.algo, best.workspaceSize}).first->second;
  }
};

CublasLt::CublasLt(std::unique_ptr<Library> library) : library_(std::move(library)) {}
CublasLt::~CublasLt() = default;

absl::StatusOr<std::unique_ptr<CublasLt>> CublasLt::Open() {
  auto library = std::make_unique<Library>();
  RETURN_IF_ERROR(library->Load());
  return std::unique_ptr<CublasLt>(new CublasLt(std::move(library)));
}

absl::Status CublasLt::Run(const Matmul& matmul, const void* a, const void* b, void* d, cudaStream_t stream) {
  Operands operands;
  RETURN_IF_ERROR(library_->Describe(matmul, operands));
  ASSIGN_OR_RETURN(const Plan plan, library_->PlanFor(matmul, operands));
  const bool is_integer = matmul.a.element == Element::kI8;
  const float one = 1, zero = 0;
  const int32_t integer_one = 1, integer_zero = 0;
  const void* const alpha = is_integer ? static_cast<const void*>(&integer_one) : &one;
  const void* const beta = is_integer ? static_cast<const void*>(&integer_zero) : &zero;
  return ToStatus(
      library_->matmul(library_->handle, &operands.matmul, alpha, a, &operands.a, b, &operands.b, beta, d, &operands.d,
                       d, &operands.d, &plan.algorithm, library_->workspace.data(), plan.workspace_bytes, stream),
      "matmul");
}

}  // namespace weft::cuda
