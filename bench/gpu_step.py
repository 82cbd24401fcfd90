"""The training steps of bench/gpu: a model with random weights, graft and PEFT on it in turn.

One program at a time has the GPU, since how much memory is free decides what graft computes again. So of
each model first graft takes its steps, then PEFT in all its settings, then graft again: both of graft's
blocks count, and show whether the machine became slower on the way. What does not fit into the memory, the
disk or the time is left out with its reason.
"""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import compare
from compare import GraftError, GraftRun, Peer, PeerError, median, say
from random_model import BYTES, adapter_parameters, parameters_of, step_flop, write_model

R, ALPHA, SEED, RATE = 16, 32, 42, 2e-4
STEPS, BLOCK_SECONDS, WARM_UP = 12, 6, 2
GIB = 2**30
LLAMA = {"model_type": "llama", "rope_theta": 500000.0, "max_position_embeddings": 8192, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip
QWEN = {"model_type": "qwen2", "rope_theta": 1000000.0, "max_position_embeddings": 32768, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip


def shape(base: dict, hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, head_dim: int, vocab: int,
          tied: bool = False) -> dict:  # fmt: skip
    return base | {
        "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocab, "tie_word_embeddings": tied,
    }  # fmt: skip


@dataclass
class Model:
    name: str
    shape: dict
    lengths: tuple[int, ...]  # tokens of a step; PEFT's settings are chosen at the first
    weight: float  # of the time that is left


MODELS = [
    Model("Llama-3-8B", shape(LLAMA, 4096, 14336, 32, 32, 8, 128, 128256), (4096, 2048, 8192), 6),
    Model("Llama-3.2-1B", shape(LLAMA, 2048, 8192, 16, 32, 8, 64, 128256, tied=True), (4096,), 2),
    Model("Qwen2.5-7B", shape(QWEN, 3584, 18944, 28, 28, 4, 128, 152064), (4096,), 3),
]
SMALL_MODELS = [
    Model("a tiny Llama", shape(LLAMA, 64, 128, 2, 4, 2, 16, 1536), (128, 64), 2),
    Model("a tiny Qwen2", shape(QWEN, 64, 128, 1, 4, 2, 16, 1536, tied=True), (64,), 1),
]
SETTINGS = [  # in the order of promise: what comes late may find no time left
    {"adapter": "bf16", "compiled": "off", "checkpointing": False},
    {"adapter": "bf16", "compiled": "layers", "checkpointing": False},
    {"adapter": "f32", "compiled": "off", "checkpointing": False},
    {"adapter": "f32", "compiled": "layers", "checkpointing": False},
    {"adapter": "bf16", "compiled": "whole", "checkpointing": False},
]
SMALL_SETTINGS = [SETTINGS[0], SETTINGS[2] | {"checkpointing": True}]
LIMITS = {"off": 60, "layers": 120, "whole": 120}  # seconds for one setting
NEEDS = {"off": 10, "layers": 40, "whole": 90}  # below which it is not begun
OPEN_LIMIT = 120
# Between the losses of step 1, where B is zero: a random model's hidden states, all of them wrong, would move the
# mean over 4,096 tokens by 2e-3 of it; bf16 moves it by 1e-4.
LOSSES_APART = 5e-4


def name_of(setting: dict) -> str:
    checkpointing = ", checkpointing" if setting["checkpointing"] else ""
    return f"{setting['attention']}, adapter {setting['adapter']}, compile {setting['compiled']}{checkpointing}"


class Clock:
    """When something has to be done."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return self.end - time.monotonic()

    def part(self, share: float) -> "Clock":
        return Clock(share * self.left())


class GpuWatch:
    """nvidia-smi beside everything: memory, clock and power of the one GPU, a few times a second."""

    def __init__(self, gpu: str | None):
        self.seen: list[tuple[float, float, float, float]] = []  # seconds, bytes, MHz, W
        self.process = None
        if gpu is None or shutil.which("nvidia-smi") is None:
            return
        self.process = subprocess.Popen(
            ["nvidia-smi", "-i", gpu, "--query-gpu=memory.used,clocks.sm,power.draw",
             "--format=csv,noheader,nounits", "--loop-ms=200"], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        threading.Thread(target=self.read, daemon=True).start()
        end = time.monotonic() + 10
        while not self.seen and time.monotonic() < end:
            time.sleep(0.1)
        self.before = self.peak_bytes(0)

    def read(self) -> None:
        for line in self.process.stdout:
            try:
                mib, mhz, watts = (float(word) for word in line.split(","))
            except ValueError:  # "[N/A]"
                continue
            self.seen.append((time.monotonic(), mib * 2**20, mhz, watts))

    def peak_bytes(self, since: float) -> float | None:
        return max((seen[1] for seen in self.seen if seen[0] >= since), default=None)

    def since(self, begin: float) -> dict:
        """What was above the first look, and how the GPU ran."""
        peak = self.peak_bytes(begin)
        if self.process is None or peak is None or self.before is None:
            return {}
        busy = [seen for seen in self.seen if seen[0] >= begin]
        return {"peak_bytes": peak - self.before, "mhz": median(seen[2] for seen in busy),
                "watts": median(seen[3] for seen in busy)}  # fmt: skip

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Bench:
    """What all of it shares."""

    options: object
    watch: GpuWatch
    torch_device: str  # of PEFT; "": no peer
    no_peer: str  # the reason
    gpu_bytes: float  # 0: unknown
    clock: Clock
    attention: list[str] = field(default_factory=lambda: ["sdpa"])


# ---- the place -------------------------------------------------------------------------------


def memory_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 0


def find_place(options, needed: float) -> tuple[Path | None, str]:
    """A folder with room for so many bytes, in memory where there is twice as much: its files are read soon."""
    places = [options.work] if options.work else [Path(tempfile.gettempdir())]
    shm = Path("/dev/shm")
    if options.work is None and shm.is_dir() and memory_available() > 2.5 * needed:
        places.insert(0, shm)
    for place in places:
        if shutil.disk_usage(place).free > needed:
            return place, ""
    free = max(shutil.disk_usage(place).free for place in places)
    return None, f"{needed / GIB:.1f} GiB of disk needed, {free / GIB:.1f} GiB free (--work names another folder)"


def why_not(bench: Bench, model: Model) -> str:
    """What speaks against a model before anything is tried; "": nothing."""
    weights = BYTES["bf16"] * parameters_of(model.shape)
    least = 1.1 * weights + 16 * adapter_parameters(model.shape, R)
    if bench.gpu_bytes and least > bench.gpu_bytes:
        return f"{least / GIB:.0f} GiB for weights and adapter, the GPU has {bench.gpu_bytes / GIB:.0f} GiB"
    return ""


# ---- graft -----------------------------------------------------------------------------------


def graft_run(bench: Bench, folder: Path, tokens: int, *more: str) -> GraftRun:
    settings = {
        "device.backend": "cuda", "device.dtype": "bf16", "model": folder / "model",
        "data.train": f"[{folder / 'documents.jsonl'}]", "data.max_length": tokens, "lora.r": R,
        "lora.lora_alpha": ALPHA, "train.micro_batches": 1, "train.seed": SEED, "train.learning_rate": RATE,
        "train.lr_scheduler_type": "constant", "train.max_steps": 1000000, "train.save_steps": 0,
        "train.save_seconds": 0, "train.report_samples": 0,
    }  # fmt: skip
    return GraftRun(bench.options.graft, folder / f"run-{tokens}{''.join(more)}", settings, bench.options.threads,
                    *more)  # fmt: skip


def first_lines(text: object) -> str:
    """What stands in a table for a failure: the error's own line, or the last one."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line or "Error" in line]
    return (told or lines or ["no message"])[-1].replace("|", "/")[:200]


def graft_block(bench: Bench, run: GraftRun, tokens: int, clock: Clock) -> dict:
    """Some steps; the first warm up and are not among `seconds`."""
    begin = time.monotonic()
    try:
        made = run.advance(bench.options.steps + WARM_UP, max(clock.left() - compare.GRACE_SECONDS, 1))
    except GraftError as error:
        return {"failed": first_lines(error)}
    found = bench.watch.since(begin) | {"wall_seconds": time.monotonic() - begin}
    if len(made) <= WARM_UP:
        return {"failed": f"{len(made)} steps in {found['wall_seconds']:.0f} s, no more time"}
    for step in made:
        if step["supervised_tokens"] != tokens - 1:
            return {"failed": f"a step of {step['supervised_tokens']:.0f} tokens, {tokens - 1} were meant"}
    say(f"   graft, {tokens} tokens: {median(step['step_time_ms'] for step in made[WARM_UP:]):.1f} ms")
    return found | {
        "seconds": [step["step_time_ms"] / 1000 for step in made[WARM_UP:]],
        "first_loss": made[0]["train_loss"] if made[0]["step"] == 1 else None,
        "plan": [line.removeprefix("graft: ") for line in run.log.splitlines() if "memory:" in line],
    }


def profile_of(bench: Bench, folder: Path, tokens: int, clock: Clock) -> dict:
    """A few steps more with --profile, whose times do not count: where graft's time goes."""
    run = graft_run(bench, folder, tokens, "--profile")
    try:
        run.advance(bench.options.steps + WARM_UP, max(clock.left() - compare.GRACE_SECONDS, 1))
    except GraftError as error:
        return {"failed": first_lines(error)}
    lines = [line.removeprefix("graft: ") for line in run.log.splitlines()]
    begin = next((i for i, line in enumerate(lines) if line.startswith("profile:")), None)
    if begin is None:
        return {"failed": "the run ended before it told"}
    end = next((i for i, line in enumerate(lines) if line.startswith("MFU:")), len(lines) - 1)
    return {"lines": lines[begin : end + 1]}


# ---- PEFT at its best ------------------------------------------------------------------------


class PeftSide:
    """A process with the model, begun again where one has died; nothing but reasons where there is none."""

    def __init__(self, bench: Bench, folder: Path):
        self.bench, self.folder, self.peer, self.tokens = bench, folder, None, 0

    def ask(self, do: str, limit: float, **arguments) -> dict:
        if self.peer is None:
            self.peer = Peer(self.bench.options.python, "peer_gpu.py", self.bench.options.threads)
            self.tokens = 0
            self.answer("open", limit, model=str(self.folder / "model"), data=str(self.folder / "documents.jsonl"),
                        device=self.bench.torch_device, r=R, alpha=ALPHA, seed=SEED, rate=RATE,
                        threads=self.bench.options.threads)  # fmt: skip
        return self.answer(do, limit, **arguments)

    def answer(self, do: str, limit: float, **arguments) -> dict:
        try:
            return self.peer.ask(do, limit=max(limit, 1), **arguments)
        except PeerError:
            if compare.exited(self.peer.process.pid) or do == "open":
                self.end()
            raise

    def end(self) -> None:
        if self.peer is not None:
            self.peer.end()
            self.peer = None

    def measure(self, setting: dict, tokens: int, clock: Clock) -> dict:
        """Steps in one setting; whatever goes wrong is told as `failed`."""
        found = {"setting": name_of(setting), "chosen": setting}
        end = Clock(min(clock.left(), LIMITS[setting["compiled"]] + (OPEN_LIMIT if self.peer is None else 0)))
        begin = time.monotonic()
        try:
            if self.peer is None or self.tokens != tokens:
                self.ask("read", end.left(), max_length=tokens)
                self.tokens = tokens
            self.ask("choose", end.left(), **setting)
            found |= self.ask("first_loss", end.left())
            begin_run = time.monotonic()
            found |= self.ask("run", end.left(), steps=self.bench.options.steps, seconds=BLOCK_SECONDS)
            found |= self.bench.watch.since(begin_run)
            told = f"{1000 * median(found['seconds']):.1f} ms"
        except PeerError as error:
            found["failed"] = told = first_lines(error)
        found["wall_seconds"] = time.monotonic() - begin
        say(f"   PEFT, {tokens} tokens, {found['setting']}: {told}")
        return found


def wanted_settings(bench: Bench) -> list[dict]:
    small = bench.options.small and not bench.options.peft
    made = [{"attention": attention} | setting
            for setting in (SMALL_SETTINGS if small else SETTINGS) for attention in bench.attention]  # fmt: skip
    return [setting for setting in made if bench.options.peft in name_of(setting)]


def out_of_memory(found: dict) -> bool:
    return "OutOfMemory" in found.get("failed", "") or "out of memory" in found.get("failed", "")


def speed_rank(found: dict) -> float:
    return median(found["seconds"]) if "seconds" in found else float("inf")


def try_settings(bench: Bench, side: PeftSide, settings: list[dict], tokens: int, clock: Clock) -> list[dict]:
    """All of them, the fastest first. One without the memory for it is tried with checkpointing."""
    tried, waiting = [], list(settings)
    while waiting:
        setting = waiting.pop(0)
        if clock.left() < NEEDS[setting["compiled"]]:
            tried.append({"setting": name_of(setting), "chosen": setting, "failed": "not tried, no more time"})
            continue
        tried.append(side.measure(setting, tokens, clock))
        if out_of_memory(tried[-1]) and not setting["checkpointing"]:
            waiting.insert(0, setting | {"checkpointing": True})
    return sorted(tried, key=speed_rank)


def peft_steps(bench: Bench, model: Model, folder: Path, clock: Clock) -> dict[int, list[dict]]:
    """What was tried at each length, the fastest first. Behind the first length only what was fastest there,
    and what came next if that fails."""
    if not bench.torch_device:
        return {tokens: [{"setting": "", "failed": bench.no_peer}] for tokens in model.lengths}
    side, found, settings = PeftSide(bench, folder), {}, wanted_settings(bench)
    for number, tokens in enumerate(model.lengths):
        left = len(model.lengths) - number
        found[tokens] = []
        for choice in [settings] if number == 0 else [[setting] for setting in settings]:
            share = 1 if left == 1 else 0.65 if number == 0 else 1 / left
            found[tokens] = try_settings(bench, side, choice, tokens, clock.part(share)) + found[tokens]
            if any("seconds" in one for one in found[tokens]):
                break
        found[tokens].sort(key=speed_rank)
        if number == 0:
            settings = [one["chosen"] for one in found[tokens] if "seconds" in one][:2] or settings[:1]
            settings = [setting | {"checkpointing": False} for setting in settings] if not bench.options.small else settings
    side.end()
    return found


# ---- both ------------------------------------------------------------------------------------


def same_work(graft_loss: float | None, peft_loss: float) -> bool:
    """Whether both programs computed the same; None is not known, and no loss that is not finite is near another."""
    return graft_loss is not None and abs(graft_loss - peft_loss) <= LOSSES_APART * peft_loss


def summary(model: Model, tokens: int, blocks: list[dict], tried: list[dict]) -> dict:
    flop = step_flop(model.shape, tokens, R)
    row = {"model": model.name, "tokens": tokens, "flop": flop, "graft_blocks": blocks, "peft_tried": tried}
    good = [block for block in blocks if "seconds" in block]
    best = tried[0] if tried and "seconds" in tried[0] else None
    if good:
        seconds = median(s for block in good for s in block["seconds"])
        row["graft"] = {"seconds": seconds, "tokens_per_s": tokens / seconds, "tera_flop_per_s": flop / seconds / 1e12,
                        "peak_bytes": max((b["peak_bytes"] for b in good if "peak_bytes" in b), default=None),
                        "first_loss": good[0]["first_loss"],
                        "blocks_seconds": [median(block["seconds"]) for block in good]}  # fmt: skip
    else:
        row["graft_failed"] = blocks[0]["failed"] if blocks else "no more time"
    if best is not None:
        seconds = median(best["seconds"])
        row["peft"] = {"seconds": seconds, "tokens_per_s": tokens / seconds, "tera_flop_per_s": flop / seconds / 1e12,
                       "peak_bytes": best.get("peak_bytes"), "allocated_bytes": best.get("allocated_bytes"),
                       "first_loss": best["loss"], "setting": best["setting"]}  # fmt: skip
    else:
        row["peft_failed"] = tried[0]["failed"] if tried else "no more time"
    if good and best is not None:
        if same_work(row["graft"]["first_loss"], row["peft"]["first_loss"]):
            row["ratio"] = row["peft"]["seconds"] / row["graft"]["seconds"]
        else:
            row["no_ratio"] = "other losses"
    return row


def skipped(model: Model, reason: str) -> list[dict]:
    say(f"   skipped: {reason}")
    return [{"model": model.name, "tokens": tokens, "skipped": reason} for tokens in model.lengths]


def measure_model(bench: Bench, model: Model, clock: Clock, with_profile: bool) -> tuple[list[dict], dict]:
    """The rows of its lengths, and where graft's time goes at the first."""
    say(f"{model.name}, {parameters_of(model.shape) / 1e9:.2f} billion parameters")
    if clock.left() < 20:
        return skipped(model, "no more time"), {}
    reason = why_not(bench, model)
    place, no_place = find_place(bench.options, 1.1 * BYTES["bf16"] * parameters_of(model.shape) + GIB)
    if reason or place is None:
        return skipped(model, reason or no_place), {}
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
        begin = time.monotonic()
        write_model(folder / "model", model.shape, "bf16")
        compare.write_long_documents(folder / "documents.jsonl", 16, 80000)
        say(f"   written in {time.monotonic() - begin:.0f} s")
        return measure_lengths(bench, model, folder, clock, with_profile)


def measure_lengths(bench: Bench, model: Model, folder: Path, clock: Clock,
                    with_profile: bool) -> tuple[list[dict], dict]:  # fmt: skip
    """graft, PEFT, graft: one at a time has the GPU."""
    runs = {tokens: graft_run(bench, folder, tokens) for tokens in model.lengths}
    blocks = {tokens: [graft_block(bench, runs[tokens], tokens, clock)] for tokens in model.lengths}
    again = sum(block["wall_seconds"] for many in blocks.values() for block in many if "wall_seconds" in block)
    reserve = again + (again / len(runs) if with_profile else 0)
    tried = peft_steps(bench, model, folder, Clock(clock.left() - reserve))
    for tokens, run in runs.items():
        if "seconds" in blocks[tokens][0] and clock.left() > 10:
            blocks[tokens].append(graft_block(bench, run, tokens, clock))
    profile = {}
    if with_profile:
        profile = profile_of(bench, folder, model.lengths[0], clock) if clock.left() > 10 else {"failed": "no more time"}
    return [summary(model, tokens, blocks[tokens], tried[tokens]) for tokens in model.lengths], profile
