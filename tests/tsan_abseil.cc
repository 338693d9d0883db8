// Tells ThreadSanitizer what absl::Mutex, CondVar and Notification do. Linked into tests of the tsan preset alone.
//
// The Abseil of a distribution is not compiled with -fsanitize=thread: its locks are atomics that the sanitizer never
// sees, and whatever they guard looks like a race. The definitions here come before the shared library's when symbols
// are looked up; each announces what it is about to do, calls the library's own, and announces that it is done.
// Between the two the sanitizer looks away, also from conditions, which the library evaluates under the lock.
//
// Header of the announcements: sanitizer/tsan_interface.h.

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

#define WEFT_STRING_INNER(x) #x
#define WEFT_STRING(x) WEFT_STRING_INNER(x)

namespace {

// The library's own function. Its mangled name (Itanium C++ ABI) is `before`, then the namespace, then `after`.
template <typename Function>
Function* Library(const std::string& after, const std::string& before = "_ZN") {
  const std::string space = WEFT_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string symbol = before + "4absl" + std::to_string(space.size()) + space + after;
  void* found = dlsym(RTLD_NEXT, symbol.c_str());
  if (found == nullptr) {
    std::fprintf(stderr, "tsan_abseil: no %s\n", symbol.c_str());
    std::abort();
  }
  return reinterpret_cast<Function*>(found);
}

// Whether the thread was outside of all functions of this file: the library calls its own functions by way of them, and
// what it does there is part of the outermost call.
class Nesting {
 public:
  Nesting() : outermost_(depth_++ == 0) {}
  ~Nesting() { --depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

  bool outermost() const { return outermost_; }

 private:
  inline static thread_local int depth_ = 0;
  const bool outermost_;
};

// While it lives, the calling thread waits for `mutex`; afterwards it holds it.
class Locking {
 public:
  explicit Locking(absl::Mutex* mutex, unsigned flags = 0) : mutex_(mutex), flags_(flags) {
    if (nesting_.outermost()) __tsan_mutex_pre_lock(mutex_, flags_);
  }
  ~Locking() {
    if (!nesting_.outermost()) return;
    __tsan_mutex_post_lock(mutex_, flags_ | (failed_ ? __tsan_mutex_try_lock_failed : 0), 0);
  }
  Locking(const Locking&) = delete;
  Locking& operator=(const Locking&) = delete;

  bool Tried(bool locked) {
    failed_ = !locked;
    return locked;
  }

 private:
  const Nesting nesting_;
  absl::Mutex* const mutex_;
  const unsigned flags_;
  bool failed_ = false;
};

// While it lives, the calling thread lets go of `mutex`.
class Unlocking {
 public:
  explicit Unlocking(absl::Mutex* mutex, unsigned flags = 0) : mutex_(mutex), flags_(flags) {
    if (nesting_.outermost()) __tsan_mutex_pre_unlock(mutex_, flags_);
  }
  ~Unlocking() {
    if (nesting_.outermost()) __tsan_mutex_post_unlock(mutex_, flags_);
  }
  Unlocking(const Unlocking&) = delete;
  Unlocking& operator=(const Unlocking&) = delete;

 private:
  const Nesting nesting_;
  absl::Mutex* const mutex_;
  const unsigned flags_;
};

constexpr unsigned kTry = __tsan_mutex_try_lock;
constexpr unsigned kRead = __tsan_mutex_read_lock;

using OfMutex = void(absl::Mutex*);
using TryMutex = bool(absl::Mutex*);
using WhenMutex = void(absl::Mutex*, const absl::Condition&);
using WhenMutexFor = bool(absl::Mutex*, const absl::Condition&, absl::Duration);
using WhenMutexUntil = bool(absl::Mutex*, const absl::Condition&, absl::Time);
using WaitMutex = void(absl::CondVar*, absl::Mutex*);
using WaitMutexFor = bool(absl::CondVar*, absl::Mutex*, absl::Duration);
using WaitMutexUntil = bool(absl::CondVar*, absl::Mutex*, absl::Time);

// A wait on a held mutex lets go of it and takes it again.
template <typename Function, typename... Arguments>
auto Wait(absl::Mutex* mutex, Function* library, Arguments&&... arguments) {
  { Unlocking unlocking(mutex); }
  Locking locking(mutex);
  return library(std::forward<Arguments>(arguments)...);
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

Mutex::~Mutex() {
  static auto* const library = Library<OfMutex>("5MutexD1Ev");
  __tsan_mutex_destroy(this, 0);
  library(this);
}

void Mutex::Lock() {
  static auto* const library = Library<OfMutex>("5Mutex4LockEv");
  Locking locking(this);
  library(this);
}

void Mutex::Unlock() {
  static auto* const library = Library<OfMutex>("5Mutex6UnlockEv");
  Unlocking unlocking(this);
  library(this);
}

bool Mutex::TryLock() {
  static auto* const library = Library<TryMutex>("5Mutex7TryLockEv");
  Locking locking(this, kTry);
  return locking.Tried(library(this));
}

void Mutex::ReaderLock() {
  static auto* const library = Library<OfMutex>("5Mutex10ReaderLockEv");
  Locking locking(this, kRead);
  library(this);
}

void Mutex::ReaderUnlock() {
  static auto* const library = Library<OfMutex>("5Mutex12ReaderUnlockEv");
  Unlocking unlocking(this, kRead);
  library(this);
}

void Mutex::LockWhen(const Condition& condition) {
  static auto* const library = Library<WhenMutex>("5Mutex8LockWhenERKNS0_9ConditionE");
  Locking locking(this);
  library(this, condition);
}

bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const library = Library<WhenMutexFor>("5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  Locking locking(this);
  return library(this, condition, timeout);
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  static auto* const library = Library<WhenMutexUntil>("5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  Locking locking(this);
  return library(this, condition, deadline);
}

void Mutex::Await(const Condition& condition) {
  static auto* const library = Library<WhenMutex>("5Mutex5AwaitERKNS0_9ConditionE");
  Wait(this, library, this, condition);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const library = Library<WhenMutexFor>("5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  return Wait(this, library, this, condition, timeout);
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static auto* const library = Library<WhenMutexUntil>("5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  return Wait(this, library, this, condition, deadline);
}

void CondVar::Wait(Mutex* mutex) {
  static auto* const library = Library<WaitMutex>("7CondVar4WaitEPNS0_5MutexE");
  ::Wait(mutex, library, this, mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const library = Library<WaitMutexFor>("7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  return ::Wait(mutex, library, this, mutex, timeout);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static auto* const library = Library<WaitMutexUntil>("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  return ::Wait(mutex, library, this, mutex, deadline);
}

// What happened before the notification is seen by those that it wakes.
void Notification::Notify() {
  static auto* const library = Library<void(Notification*)>("12Notification6NotifyEv");
  __tsan_release(&notified_yet_);
  library(this);
}

void Notification::WaitForNotification() const {
  static auto* const library = Library<void(const Notification*)>("12Notification19WaitForNotificationEv", "_ZNK");
  library(this);
  __tsan_acquire(const_cast<std::atomic<bool>*>(&notified_yet_));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static auto* const library = Library<bool(const Notification*, Duration)>(
      "12Notification30WaitForNotificationWithTimeoutENS0_8DurationE", "_ZNK");
  const bool notified = library(this, timeout);
  if (notified) __tsan_acquire(const_cast<std::atomic<bool>*>(&notified_yet_));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl
