"""Known bugs, put into the scheduler one at a time: the simulator must find each.

  ./weft mutants [NAME...]

Compiles what a mutant changes, links it to what is built already, and runs seeds until one fails. Prints a Markdown
table; the exit code says whether every mutant was caught. A mutant whose old text is not in its file exactly once has
gone stale, which is a failure too.
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# name, file under scheduler/, old text, new text, what it stands for
MUTANTS = [
    ("shared_block_freed_by_first_holder", "kv_block_pool.cc",
     "if (--block.num_holders > 0) continue;", "block.num_holders = 0;",
     "wrong fork count: a shared block goes with its first holder"),
    ("hit_in_use_not_counted", "kv_block_pool.cc",
     "if (BlockOf(id).num_holders++ == 0) Unlink(id);",
     "if (BlockOf(id).num_holders == 0) BlockOf(id).num_holders = 1, Unlink(id);",
     "wrong fork count: a second holder is not counted"),
    ("evicted_block_still_found", "kv_block_pool.cc",
     "  registered_.erase(block.key);\n  block.is_registered", "  block.is_registered",
     "a hash outlives its block"),
    ("registered_block_given_to_all", "kv_block_pool.cc",
     "if (block.is_registered) {\n      PushNewest", "if (false) {\n      PushNewest",
     "a cached block is on the free list"),
    ("one_block_more_than_there_is", "kv_block_pool.cc",
     "if (count > num_available()) return false;", "if (count > num_available() + 1) return false;",
     "the pool promises what it doesn't have"),
    ("nan_blocks_stay_shared", "kv_block_pool.cc",
     "if (BlockOf(id).is_registered) Drop(BlockOf(id));", "(void)id;",
     "poisoned blocks are taken up by others"),
    ("key_without_what_came_before", "prefix_key.cc",
     "  hasher.Add(before.digest.data(), before.digest.size());\n", "  (void)before;\n",
     "equal blocks behind different prefixes are mixed up"),
    ("scope_without_tenant", "prefix_key.cc",
     "for (const absl::string_view part : {tenant, model, salt}) {",
     "for (const absl::string_view part : {model, salt, tenant.substr(0, 0)}) {",
     "tenants share a cache that should be apart"),
    ("registered_before_the_write", "admission.cc",
     "const int num_tokens = std::min(sequence.num_computed, sequence.num_known());",
     "const int num_tokens = sequence.num_known();",
     "a hash registered before its block is written"),
    ("whole_prompt_from_cache", "admission.cc",
     "(KnownTokens(request) - 1) / limits_.block_size", "KnownTokens(request) / limits_.block_size",
     "a full hit leaves no token to compute"),
    ("scored_prompt_from_cache", "admission.cc",
     "if (request.sampling.score_prompt && request.progress.num_scored + 1 <", "if (request.progress.num_scored + 1 < 0 &&",
     "scores of cached tokens are missing"),
    ("suspects_run_together", "admission.cc",
     "[](const auto& s) { return s->request->progress.suspect_until.has_value(); });", "[](const auto&) { return false; });",
     "innocent requests are quarantined with the guilty"),
    ("needs_counted_before_victims_left", "admission.cc",
     "  while (true) {\n    const int num_blocks = NumNeededBlocks(request);", "  const int num_blocks = NumNeededBlocks(request);\n  while (true) {",
     "blocks that a victim shared are counted twice"),
    ("cached_blocks_cost_nothing", "admission.cc",
     "if (pool_.IsHeld(key)) {", "if (pool_.Has(key)) {",
     "a hit on a cached block is promised to somebody else too"),
    ("short_for_ever", "admission.cc",
     "short_of_blocks_ && !running_.empty()", "short_of_blocks_",
     "stuck waiter: an empty replica waits for blocks"),
    ("rows_taken_in_turns", "admission.cc",
     "RowsOf(request, -1) >= RowsOf(newcomer_, 1)", "RowsOf(request, 0) >= RowsOf(newcomer_, 0)",
     "livelock: two tenants take a row from each other"),
    ("served_more_takes_rows", "admission.cc",
     "other.CounterIn(priority) < own.EvenFrom(priority, own.policy.weight)) return false;", "false) return false;",
     "a tenant that was served more takes rows from one that was served less"),
    ("served_less_takes_no_rows", "admission.cc",
     "return RowsOf(request, -1) > 0;", "return RowsOf(request, -1) >= RowsOf(newcomer_, 1);",
     "a tenant that was served less waits for itself"),
    ("last_row_taken", "admission.cc",
     "return RowsOf(request, -1) > 0;", "return true;",
     "a tenant loses its last row to one with credit"),
    ("finished_counted_twice", "admission.cc",
     "if (sequence->leaving == Sequence::Leaving::kPreempted) AddGone", "AddGone",
     "a row is taken by a tenant that runs no less"),
    ("misfit_for_ever", "admission.cc",
     "misfit->second.compared == compared &&", "",
     "stuck waiter: it was served less since, and nobody looks"),
    ("class_preempts_its_equals", "admission.cc",
     "(*it)->request->priority < newcomer_.priority) Take", "(*it)->request->priority <= newcomer_.priority) Take",
     "livelock: equals preempt each other"),
    ("blocks_freed_in_flight", "scheduler.cc",
     "if (sequence.num_in_flight == 0) sequence.blocks.Clear();", "sequence.blocks.Clear();",
     "a preempted sequence's blocks are freed while a step writes them"),
    ("cancelled_freed_in_flight", "scheduler.cc",
     "ForgetComputing(sequence);\n  Tell(sequence, std::move(event));",
     "ForgetComputing(sequence);\n  sequence.blocks.Clear();\n  Tell(sequence, std::move(event));",
     "a cancelled sequence's blocks are freed while a step writes them"),
    ("tokens_after_the_end", "commit.cc",
     "if (sequence.leaving == Sequence::Leaving::kFinished) break;  // drawn past its end", "",
     "a token or a second end after the end"),
    ("last_token_not_noticed", "commit.cc",
     "if (sequence.num_output() >= request.stop.max_tokens) Finish", "if (sequence.num_output() > request.stop.max_tokens) Finish",
     "a request that has all its tokens never ends"),
    ("stop_token_handed_out", "commit.cc",
     "Finish(sequence, {.reason = FinishReason::kStop, .stop_token = token.token});\n    return;",
     "Tell(sequence, token);\n    Finish(sequence, {.reason = FinishReason::kStop, .stop_token = token.token});\n    return;",
     "the stop token is part of the answer"),
    ("block_table_lags", "scheduler.cc",
     "block < NumBlocks(end); ++block) {", "block < NumBlocks(sequence.num_scheduled); ++block) {",
     "a step without the block it writes"),
    ("scores_without_bound", "scheduler.cc",
     "  budget.scores -= num_scores;\n", "",
     "logits outgrow their memory"),
    ("tokens_without_bound", "scheduler.cc",
     "  budget.tokens -= num_tokens;\n  budget.scores", "  budget.scores",
     "a step outgrows its memory"),
    ("served_more_goes_first", "prompts.cc",
     "prompt.is_first = !prompts.HasLessThan(request);", "prompt.is_first = prompts.HasLessThan(request);",
     "a newcomer's prompt waits behind those of a tenant that was served more"),
    ("prompts_never_give_way", "prompts.cc",
     "return disturbance_ <= absl::ZeroDuration() &&", "return true ||",
     "each of a stream's tokens waits for another's prompt"),
    ("rows_beyond_the_bound", "admission.cc",
     "const int left = max_running_ - ", "const int left = limits_.max_num_seqs - ",
     "more sequences run than leave a step short"),
    ("bound_on_rows_never_lifted", "scheduler.cc",
     "max_running_ = std::max(row_pacer_.max_rows(), max_running_ - 1);", "max_running_ = max_running_ - 1;",
     "who ends leaves a row that nobody gets"),
    ("disturbance_not_counted", "commit.cc",
     "(step.disturbs ? 1 - share : -share)", "-share",
     "prompts that give way take more than their share of the time"),
    ("turn_lost", "scheduler.cc",
     "tries > 0 && building_", "tries > 1000 && building_",
     "a pipeline stands still where those whose turn it was gave way"),
    ("answer_counted_twice", "commit.cc",
     "if (result.step < oldest) return ServiceRate::Step{};", "if (in_flight_.empty()) return ServiceRate::Step{};",
     "an answer that comes twice is taken for the next"),
    ("nobody_blamed", "scheduler.cc",
     "const bool was_in_step = sequence->num_in_flight > 0;", "const bool was_in_step = false;",
     "a request kills one replica after the other"),
    ("cancel_not_seen", "scheduler.cc",
     "if (end.has_value()) Finish(", "if (end.has_value() && end->reason != FinishReason::kCancelled) Finish(",
     "a client that left keeps its blocks"),
    ("deadline_not_seen", "scheduler.cc",
     "if (end.has_value()) Finish(", "if (end.has_value() && end->reason == FinishReason::kCancelled) Finish(",
     "a request runs past its deadline"),
    ("computing_not_forgotten", "scheduler.cc",
     "sequence.leaving = Sequence::Leaving::kFinished;\n  ForgetComputing(sequence);",
     "sequence.leaving = Sequence::Leaving::kFinished;",
     "stuck waiter: for a prefix that nobody computes"),
    ("blocked_for_ever", "scheduler.cc",
     "    misfits_.clear();\n", "",
     "stuck waiter: room is made, and nobody looks"),
    ("slot_not_given_back", "scheduler.cc",
     "    free_slots_.push_back(sequence->slot);\n    sequence->blocks.Clear();\n    misfits_",
     "    if (sequence->leaving == Sequence::Leaving::kFinished) free_slots_.push_back(sequence->slot);\n"
     "    sequence->blocks.Clear();\n    misfits_",
     "a preempted sequence's row is lost"),
    ("lost_token_after_preemption", "sequence.h",
     "progress.output.assign(tokens.begin() + num_prompt(), tokens.end());",
     "progress.output.assign(tokens.begin() + num_prompt(), tokens.end() - (num_output() > 0 ? 1 : 0));",
     "doubled token after a preemption"),
    ("scores_twice_after_preemption", "sequence.h",
     "    progress.num_scored = num_scored;\n", "",
     "doubled scores after a preemption"),
    ("give_back_not_counted", "fair_queue.cc",
     "    --account.num_running;\n    --num_running_;\n    ++version_;\n    // Under",
     "    --num_running_;\n    ++version_;\n    // Under",
     "a tenant's cap on running leaks"),
    ("never_drained", "fair_queue.cc",
     "  --account.num_running;\n  --num_running_;\n  ++version_;\n  if (was", "  --account.num_running;\n  ++version_;\n  if (was",
     "shutdown waits for ever"),
    ("charged_again", "fair_queue.cc",
     "if (!request->progress.charged) Charge", "Charge",
     "a tenant pays for its preemptions"),
    ("refund_doubled", "counters.cc",
     "(options_.cached_token_price - 1.0)", "2 * (options_.cached_token_price - 1.0)",
     "a tenant with cache hits overtakes all others"),
    ("weights_ignored", "counters.cc",
     "account.CounterIn(priority) + price / account.policy.weight;", "account.CounterIn(priority) + price;",
     "shares are not by weight"),
    ("idling_earns_credit", "fair_queue.cc",
     "  if (account.WaitingIn(request->priority).empty()) LiftToOthers(account, request->priority);\n", "",
     "a tenant saves up service, and starves the others"),
    ("credit_without_bound", "counters.cc",
     "CounterOfOthers(account, priority) - options_.max_credit / account.policy.weight;", "0;",
     "a tenant saves up more than the bound"),
    ("credit_by_weight_ignored", "counters.cc",
     "options_.max_credit / account.policy.weight;", "options_.max_credit;",
     "a light tenant has too little credit"),
    ("new_name_brings_credit", "fair_queue.cc",
     "account->SetCounter(p, CounterOfOthers(*account, p));", "account->SetCounter(p, 0);",
     "new names are a way around fairness"),
    ("credit_from_credit", "counters.cc",
     "return std::max(least, pulled_counters_[c]);", "return least;",
     "beside one that spends its credit others get more than theirs"),
    ("cap_on_running_off_by_one", "tenant_account.h",
     "num_running < policy.max_running", "num_running <= policy.max_running",
     "a tenant runs one more than it may"),
    ("classes_upside_down", "fair_queue.cc",
     "for (int c = kNumPriorities - 1; c >= 0; --c) {", "for (int c = 0; c < kNumPriorities; ++c) {",
     "low before high"),
    ("place_lost", "fair_queue.cc",
     "waiting.insert(place, std::move(request));", "(void)place, waiting.push_back(std::move(request));",
     "a preempted request goes to the end of the line"),
    ("lost_wake_up", "fair_queue.cc",
     "  ++num_waiting_;\n  ++version_;\n", "  ++num_waiting_;\n",
     "stuck waiter: an idle replica sleeps beside a request"),
    ("places_leak", "refusals.cc",
     "  account.num_reserved -= count;\n  num_reserved_ -= count;\n", "  account.num_reserved -= count;\n",
     "refused requests fill the queue"),
    ("cap_on_queued_forgets_promises", "refusals.cc",
     "const int64_t own = account.num_waiting + account.num_reserved;", "const int64_t own = account.num_waiting;",
     "a tenant queues more than it may"),
    ("most_served_first", "fair_queue.cc",
     "if (may_be_next(account)) least = std::min(least, account->CounterIn(priority));", "(void)account;",
     "the greediest tenant goes before one that was served less"),
    ("ties_forget_rows", "fair_queue.cc",
     "return std::tuple(rows, tenant.CounterIn(priority),", "return std::tuple(0 * rows, tenant.CounterIn(priority),",
     "of equals, the one that already runs more goes first"),
    ("one_class_pays_for_another", "tenant_account.h",
     "return counters[static_cast<size_t>(priority)].load", "return counters[priority == Priority::kHigh ? 0 : static_cast<size_t>(priority)].load",
     "a request of a high class costs a tenant its turns in a lower one"),
    ("overtaken_for_ever", "fair_queue.cc",
     "request.progress.num_overtakers < kMaxOvertakers;", "true;",
     "a large request starves behind small ones"),
    ("clock_jump_drains_bucket", "token_bucket.h",
     "std::max(now - last_, absl::ZeroDuration())", "now - last_",
     "a clock that jumps back locks a tenant out"),
    ("affinity_for_ever", "dispatcher.cc",
     "const absl::Time latest = since + options_.max_affinity_wait;",
     "const absl::Time latest = now + options_.max_affinity_wait;",
     "a request waits for a busy replica without bound"),
    ("affinity_without_alarm", "dispatcher.cc",
     "  look_again = std::min(look_again, until);\n", "",
     "stuck waiter: nobody looks when the wait is over"),
    ("restart_remembers_content", "scheduler.cc",
     "  pool_.ForgetContent();\n", "",
     "after a restart blocks are taken up that the dead engine held"),
    ("killed_is_blamed", "replica.cc",
     "/*from_outside=*/absl::IsUnavailable(status)", "false",
     "requests are suspected although the engine was killed from outside"),
    ("killed_is_never_blamed", "dispatcher.cc",
     "return ++progress.num_kills <= Dispatcher::kMaxKills;", "return true;",
     "a request whose memory kills its worker is tried for ever"),
    ("kills_add_up", "dispatcher.cc",
     "progress.num_kills = 0;", "(void)0;",
     "a long request is quarantined for what other causes killed"),
    ("death_loses_tokens", "dispatcher.cc",
     "    queue_.GiveBack(std::move(request));", "    progress.output.clear();\n    queue_.GiveBack(std::move(request));",
     "a client gets its tokens again after a death"),
    ("never_quarantined", "dispatcher.cc",
     "if (++progress.num_deaths >= kMaxDeaths || is_suspect) {", "if (false && is_suspect) {",
     "a request of death is tried for ever"),
    ("quarantined_still_counts", "dispatcher.cc",
     "        queue_.Leave(*request->account);\n", "",
     "a tenant's cap on running leaks by deaths"),
    ("told_after_the_death", "replica.cc",
     "scheduler_.Abort();\n  Publish();\n", "scheduler_.Abort();\n",
     "a token after the end, by a replica that died"),
    ("end_not_counted", "replica.cc",
     "    queue.Leave(*request.account);\n", "",
     "a tenant's cap on running leaks by ends"),
    ("end_not_told", "replica.cc",
     "    request.sink->Finish(std::get<FinishEvent>(event.what));", "",
     "a stream without an end"),
    ("directory_never_shrinks", "prefix_directory.h",
     "    found->second &= ~Bit(replica);\n    if (found->second == 0) holders_.erase(found);", "    (void)replica;",
     "what was evicted is remembered for ever"),
]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


class Build:
    """What ninja knows of the simulator's build: commands, and who includes what."""

    def __init__(self, directory):
        self.directory = directory
        commands = json.loads((directory / "compile_commands.json").read_text())
        self.compile = {}
        for entry in commands:
            words = shlex.split(entry["command"])
            self.compile[words[words.index("-o") + 1]] = words
        link = run(["ninja", "-t", "commands", "weft_sim"], cwd=directory, check=True).stdout.splitlines()[-1]
        self.link = shlex.split(link.removeprefix(": && ").removesuffix(" && :"))
        deps = run(["ninja", "-t", "deps"], cwd=directory, check=True).stdout
        self.includers = {}
        for block in deps.split("\n\n"):
            lines = block.strip().splitlines()
            if not lines:
                continue
            output = lines[0].split(": #deps")[0]
            if output.startswith(("scheduler/", "tests/simulator/")):
                for line in lines[1:]:
                    self.includers.setdefault((directory / line.strip()).resolve(), set()).add(output)

    def objects_of(self, file):
        return sorted(self.includers.get((REPOSITORY / "scheduler" / file).resolve(), ()))


def stale(file, old):
    """Why a mutant no longer finds its place, or None."""
    count = (REPOSITORY / "scheduler" / file).read_text().count(old)
    return None if count == 1 else f"stale: its old text is {count} times in {file}"


def mutate(tree, file, old, new):
    """A copy of scheduler/ under `tree` with the one change; what is wrong with that, or None."""
    (tree / "scheduler").mkdir()
    for source in (REPOSITORY / "scheduler").glob("*.[hc]*"):
        (tree / "scheduler" / source.name).write_text(source.read_text())
    if wrong := stale(file, old):
        return wrong
    text = (tree / "scheduler" / file).read_text()
    (tree / "scheduler" / file).write_text(text.replace(old, new))
    return None


def compile_mutant(build, tree, file):
    """The path of the simulator with the mutant in it, or why there is none."""
    link = list(build.link)
    for number, output in enumerate(build.objects_of(file)):
        words = list(build.compile[output])
        mine = str(tree / f"{number}.o")
        source = pathlib.Path(words[-1])
        if source.parent == REPOSITORY / "scheduler":
            words[-1] = str(tree / "scheduler" / source.name)
        words[words.index("-o") + 1] = mine
        words = [word for word in words if word not in ("-Werror", "-O3", "-MD")] + ["-O1", "-w"]
        words.insert(words.index(f"-I{REPOSITORY}"), f"-I{tree}")
        for flag in ("-MT", "-MF"):
            if flag in words:
                del words[words.index(flag):words.index(flag) + 2]
        done = run(words, cwd=build.directory)
        if done.returncode != 0:
            return None, "does not compile: " + done.stderr.strip().splitlines()[0]
        if output in link:
            link[link.index(output)] = mine
        else:  # before the library, whose own copy is then not wanted
            link.insert(link.index("scheduler/libweft_scheduler.a"), mine)
    binary = tree / "weft_sim"
    link[link.index("-o") + 1] = str(binary)
    done = run(link, cwd=build.directory)
    if done.returncode != 0:
        return None, "does not link: " + done.stderr.strip().splitlines()[-1]
    return binary, None


def hunt(binary, seeds, seconds):
    """The seed that catches it and how; no seed: it got away."""
    try:
        done = run([binary, "--first-seed", "1", "--seeds", str(seeds), "--timeout", "10"], timeout=seconds)
    except subprocess.TimeoutExpired:
        return None, f"not caught within {seconds} s"
    if done.returncode == 0:
        return None, f"not caught by {seeds} seeds"
    output = done.stdout + done.stderr
    seed = re.search(r"seed (\d+) failed", output)
    how = re.search(r"CHECK\(.*\): (.*)", output)
    told = how.group(1) if how else ("it doesn't end" if "no end in sight" in output else "a crash")
    return (seed.group(1) if seed else None), told


def try_mutant(build, mutant, seeds, seconds):
    name, file, old, new, _ = mutant
    with tempfile.TemporaryDirectory(prefix="weft_mutant_") as directory:
        tree = pathlib.Path(directory)
        wrong = mutate(tree, file, old, new)
        if wrong:
            return None, wrong
        binary, wrong = compile_mutant(build, tree, file)
        if wrong:
            return None, wrong
        return hunt(binary, seeds, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build/release")
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="only that each still finds its place in the scheduler")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    unknown = set(options.names) - {mutant[0] for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    if options.check:
        sys.exit("\n".join(f"{name}: {wrong}" for name, file, old, *_ in MUTANTS if (wrong := stale(file, old))) or 0)
    build = Build(options.build.resolve())
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant[0] in options.names]
    print("| mutant | stands for | caught by seed | as |\n|---|---|---:|---|")
    escaped = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda mutant: try_mutant(build, mutant, options.seeds, options.seconds), chosen)
        for mutant, (seed, how) in zip(chosen, results):
            escaped += seed is None
            print(f"| {mutant[0]} | {mutant[4]} | {seed or '-'} | {how} |", flush=True)
    print(f"\n{len(chosen) - escaped} of {len(chosen)} mutants caught")
    sys.exit(escaped != 0)


if __name__ == "__main__":
    main()
