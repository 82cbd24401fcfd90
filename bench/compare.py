"""Two programs measured against each other: how they are started, and what of a run is written down.

Used by the programs of bench/ that are written in Python; needs nothing but Python itself, so that
the memory of the processes it starts is theirs alone. Results go to bench/results/.
"""

import argparse
import datetime
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
SOURCE = BENCH.parent
SHARED = SOURCE.parent / "shared"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "graft-tests"
DEMO = SOURCE / "data" / "demo"
STOPPED = 138  # graft's exit code after SIGUSR1
GRACE_SECONDS = 20  # in which it saves and ends
LLAMA_125M = {
    "model_type": "llama", "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 32000,
    "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA_TINY = LLAMA_125M | {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def need(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            sys.exit(f"{path} is missing: it belongs to the fixtures, which a clone does not have (README, Speed)")


def find_graft() -> Path:
    builds = [SOURCE / "build" / preset / "bin" / "graft" for preset in ("release", "dev")]
    return next((path for path in builds if path.exists()), builds[0])


def beside(graft: Path, name: str) -> Path:
    """A program of bench/ of the same build."""
    path = graft.with_name(name)
    if not path.exists():
        sys.exit(f"there is no {path}\n  hint: cmake --build {path.parent.parent} --target {name}")
    return path


def find_python() -> Path:
    """The one with PEFT that tests/run.sh --with-peft makes."""
    return Path(os.environ.get("GRAFT_PEFT_PYTHON", CACHE / "peft" / "bin" / "python"))


def arguments(description: str, rounds: int = 7) -> argparse.ArgumentParser:
    """The options all comparisons share. rounds: the default; 0: there are none."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graft", type=Path, default=find_graft(), help="the program")
    parser.add_argument("--python", type=Path, default=find_python(), help="one that has PEFT")
    if rounds > 0:
        parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=BENCH / "results", help="folder of the results")
    parser.add_argument("--work", type=Path, help="folder of models and runs; default: that of the system")
    return parser


# ---- what is trained -------------------------------------------------------------------------


def write_long_documents(path: Path, count: int, characters: int = 20000) -> None:
    """Each far longer than a pack, to be cut there."""
    text = " ".join(
        message["content"]
        for line in (DEMO / "train.jsonl").read_text().splitlines()
        for message in json.loads(line)["messages"]
    )
    stride = len(text) // count
    with path.open("w") as file:
        for begin in range(0, count * stride, stride):
            turned = text[begin:] + text[:begin]
            print(json.dumps({"text": turned[:characters]}), file=file)


# ---- the two programs ------------------------------------------------------------------------


def environment(threads: int) -> dict:
    return os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONDONTWRITEBYTECODE": "1"}


class PeerError(Exception):
    pass


class Peer:
    """The other program in a process of its own: one of peer_*.py, which see for the commands."""

    def __init__(self, python: Path, script: str, threads: int, parallel_tokenizers: bool = False):
        variables = environment(threads) | {
            "TOKENIZERS_PARALLELISM": str(parallel_tokenizers).lower(),
            "RAYON_NUM_THREADS": str(threads),
        }
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [python, "-W", "ignore", BENCH / script], env=variables, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self, do: str, limit: float | None = None, **options) -> dict:
        """Its answer; a PeerError tells why there is none. After `limit` seconds it is ended."""
        line = ""
        if not exited(self.process.pid):
            begin = time.monotonic()
            timer = threading.Timer(limit or 0, os.kill, (self.process.pid, signal.SIGKILL))
            if limit is not None:
                timer.start()
            print(json.dumps({"do": do} | options), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
            timer.cancel()
            if not line and limit is not None and time.monotonic() - begin >= limit:
                raise PeerError(f"not done within {limit:.0f} s")
        if not line:
            self.log.seek(0)
            raise PeerError("the process ended: " + (self.log.read().strip() or "no message")[-200:])
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def end(self) -> int:
        """Ends it; the most memory it had, in bytes."""
        os.kill(self.process.pid, signal.SIGKILL)
        _, _, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        return usage.ru_maxrss * 1024


class GraftError(SystemExit):
    """graft ended as it should not; ends the program unless it is caught."""


class GraftRun:
    """One training run of graft that goes on a few steps at a time."""

    def __init__(self, program: Path, folder: Path, settings: dict, threads: int, *more: str):
        self.program, self.folder, self.threads = program, folder, threads
        values = settings | {"output": folder, "device.threads": threads}
        self.command = [program, "train", "/dev/null", *more]
        for key, value in values.items():
            self.command += ["--set", f"{key}={value}"]
        self.done = 0
        self.peak_bytes = 0

    def steps(self) -> list[dict]:
        """The metrics of all steps so far."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in events if event.get("event") == "step"]

    def advance(self, count: int, limit: float = float("inf")) -> list[dict]:
        """Starts it, stops it in the step after `count` steps, or after `limit` seconds, and returns
        the metrics of all."""
        end = time.monotonic() + limit
        with (self.folder.parent / "graft.log").open("w+") as log:
            process = subprocess.Popen(self.command, env=environment(self.threads), stdout=log, stderr=log)
            while len(self.steps()) < self.done + count and not exited(process.pid) and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(0.05)  # by now the next step has begun
            os.kill(process.pid, signal.SIGUSR1)  # not yet waited for, so the number is still its own
            while limit < float("inf") and not exited(process.pid):
                if time.monotonic() > end + GRACE_SECONDS:
                    os.kill(process.pid, signal.SIGKILL)
                time.sleep(0.02)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            self.log = log.read()
            if process.returncode not in (0, STOPPED):
                raise GraftError(f"graft exited with {process.returncode}:\n{self.log}")
        self.peak_bytes = max(self.peak_bytes, usage.ru_maxrss * 1024)
        made = self.steps()[self.done :]
        self.done += len(made)
        return made


def exited(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def dtype_of_run(folder: Path) -> str:
    """What graft computed in: the answer to device.dtype: auto."""
    return json.loads((folder / "run.json").read_text())["dtype"]


# ---- what is written down --------------------------------------------------------------------


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def graft_version(graft: Path) -> dict:
    done = subprocess.run([graft, "version", "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def command_line() -> str:
    """Without what names places of this machine."""
    words, places = [], ("--graft", "--python", "--out", "--work", "--smollm2")
    given = iter(sys.argv[1:])
    for word in given:
        name, _, value = word.partition("=")
        if name not in places:
            words.append(word)
        elif not value:
            next(given, None)
    return shlex.join([f"bench/{Path(sys.argv[0]).name}", *words])


def machine(options: argparse.Namespace, peer_versions: dict) -> dict:
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "date": datetime.date.today().isoformat(),
        "command": command_line(),
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores, {kib / 2**20:.0f} GiB",
        "threads": options.threads,
        "rounds": getattr(options, "rounds", None),
        "graft": graft_version(options.graft),
        "peer": peer_versions,
    }


def median(values) -> float:
    return statistics.median(values)


def table(columns: list[str], rows: list[list]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def heading(about: dict) -> str:
    """The Markdown lines on where and how something was measured."""
    named = "".join(f", {name} {version}" for name, version in about["peer"].items())
    graft = about["graft"]
    return (
        f"{about['date']}, `{about['command']}`\n\n"
        f"{about['cpu']}; {about['threads']} threads, medians of {about['rounds']} rounds in which the "
        f"programs alternate.\n\n"
        f"graft {graft['graft']} ({graft['commit']}, {graft['isa']}, {graft['compiler']}){named}.\n"
    )


def write(options: argparse.Namespace, name: str, result: dict, markdown: str) -> None:
    """NAME-DATE.json and NAME-DATE.md; the Markdown is printed too."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}-{result['about']['date']}"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown)
    print(markdown)
    say(f"written to {path}.json and .md")
