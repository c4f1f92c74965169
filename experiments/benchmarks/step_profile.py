"""Where the time of a training step goes, and whether mel's choices of how to compute are the fastest.

    python -m experiments.benchmarks.step_profile [--mentions=2688] [--kernels=40]

The same batches at variable length, with what mel chooses on this machine and with other choices, each in a process of
its own that has the device to itself; the result is mel's time by that of the fastest. On a GPU what mel chooses is
traced for a step, too, and its kernels are printed by the time that they take.
"""

from __future__ import annotations

import collections
import gzip
import json
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from experiments.benchmarks import workload
from experiments.benchmarks.gpu import AS_NEEDED
from experiments.benchmarks.harness import Target, child, options, parser, publish
from experiments.benchmarks.workload import Ours, Spec
from experiments.programs import launch

TARGET = Target(1.05, 1.0, at_least=False)
CHOSEN = "as mel chooses"
PLENTY = 1 << 50
WAYS = {
    CHOSEN: (),
    "products computed again": (("product_bytes", 0),),
    "products kept": (("product_bytes", PLENTY),),
    "plain attention": (("attention", "plain"),),
    "short rows to the kernel, too": (("plain_up_to", 0),),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = workload.add_flags(parser(__doc__, repeats=3), mentions=512)
    flags.add_argument("--steps", type=int, default=10, help="steps that are timed together")
    flags.add_argument("--widths", type=int, default=3, help="widths of texts that are compiled into a step, at most")
    flags.add_argument("--kernels", type=int, default=30, help="kernels to print")
    flags.add_argument("--ways", nargs="+", choices=list(WAYS)[1:], default=list(WAYS)[1:], help="the other choices")
    chosen = options(flags, argv)
    spec = workload.spec_of(chosen, steps_a_turn=2 if chosen.quick else chosen.steps, widths=chosen.widths)
    milliseconds: dict[str, list[float]] = {}
    with workload.initial_weights(spec) as folder:
        for way in (CHOSEN, *chosen.ways):
            ours = Ours(compact=True, compute=WAYS[way])
            try:
                with child(traced_side, spec, folder, ours, way == CHOSEN, environment=AS_NEEDED) as run:
                    kernels = run().value
                    turns = [run() for _ in range(chosen.repeats)]
            except RuntimeError as error:  # a choice that this device does not know, or has no room for
                if way == CHOSEN:
                    raise
                print(f"Left out, {way}: {error}", flush=True)
                continue
            milliseconds[way] = [1e3 * turn.seconds / spec.steps_a_turn for turn in turns]
            print(f"{way}: {statistics.median(milliseconds[way]):.1f} ms a step", flush=True)
            if kernels:
                print("\n".join(listed(kernels, chosen.kernels)), flush=True)
    fastest = min(milliseconds, key=lambda way: statistics.median(milliseconds[way]))
    runs = {CHOSEN: milliseconds[CHOSEN], f"fastest, {fastest}": milliseconds[fastest]}
    details = {way: statistics.median(values) for way, values in milliseconds.items()}
    measure = f"a step of {chosen.mentions} mentions as mel chooses to compute it ÷ the fastest way tried"
    return publish("step_profile", measure, TARGET, runs, "ms", chosen.results, details)


def traced_side(turn: Callable[..., None], spec: Spec, folder: str, ours: Ours, traced: bool) -> None:
    """A side of so many steps a turn, which tells the kernels of one more: {name: [ms, calls]}, none on a CPU."""
    import jax

    state, step, batches = workload.our_step(workload.make_work(spec), spec, folder, ours)
    kernels: dict[str, list[float]] = {}
    for number, batch in enumerate(batches, start=1):
        state, metrics = step(state, batch)
        if number % spec.steps_a_turn:
            continue
        jax.block_until_ready(metrics)
        # In the first turn, which is not timed.
        if traced and number == spec.steps_a_turn and jax.default_backend() != "cpu":
            with tempfile.TemporaryDirectory() as trace:
                with jax.profiler.trace(trace):
                    state, metrics = step(state, batch)
                    jax.block_until_ready(metrics)
                kernels = kernels_of(pathlib.Path(trace))
        turn(kernels)


def kernels_of(trace: pathlib.Path) -> dict[str, list[float]]:
    """The milliseconds and calls of each kernel in a trace of jax.profiler."""
    (file,) = trace.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    devices = {e["pid"] for e in events if e.get("name") == "process_name" and "GPU" in e["args"]["name"]}
    streams = {
        (e["pid"], e["tid"])
        for e in events
        if e.get("name") == "thread_name" and e["pid"] in devices and "Stream" in e["args"]["name"]
    }
    found: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0])
    for event in events:
        if event.get("ph") == "X" and (event["pid"], event["tid"]) in streams:
            found[event["name"]][0] += event["dur"] / 1e3
            found[event["name"]][1] += 1
    return dict(found)


def listed(kernels: dict[str, list[float]], count: int) -> list[str]:
    """The kernels that take most, a line each, under how much all take."""
    total, calls = (sum(values) for values in zip(*kernels.values(), strict=True))
    ordered = sorted(kernels.items(), key=lambda item: -item[1][0])[:count]
    return [
        f"{total:.1f} ms in {calls:,} kernels:",
        *(f"{ms:9.2f} ms {n:6,} × {name[:90]}" for name, (ms, n) in ordered),
    ]


if __name__ == "__main__":
    launch(main)
