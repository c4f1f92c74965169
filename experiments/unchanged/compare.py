"""Compares what two runs of the same commands computed: array contents and results, not manifests.

  python -m experiments.unchanged.compare BEFORE AFTER

Prints a line a kind: how many were compared, how many are equal, the first difference. Exits with 1 where
anything differs or is missing, and where nothing was compared of a kind that BEFORE has.

Values are equal where shape, type and every byte are. Files are matched by their path below the two folders;
the folder of a decoded cache by its name without the digest. Leaves of a checkpoint are matched in the sorted
order of their paths, from which every level named "encoder" is left out.
"""

import argparse
import collections
import gzip
import json
import pathlib
import re
import sys

import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import load_file

REPORT_KEYS = ("mentions", "kb_coverage", "micro", "macro", "by_language", "breakdowns", "calibration", "tuned")
NOT_COMPARED = ("logit_scale",)  # of metrics.jsonl
ABSENT = object()


def array(path):
    yield "", np.load(path)


def checkpoint(path):
    tree = ocp.PyTreeCheckpointer().restore(path.absolute())
    leaves = sorted(_leaves(tree, ()), key=lambda leaf: leaf[0])
    for place, (names, value) in enumerate(leaves):
        yield f"leaf {place}", (value, "/".join(names))


def _leaves(tree, path):
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    else:
        if tree is not None:  # a state that holds nothing
            yield tuple(name for name in path if name != "encoder"), tree
        return
    for name, value in items:
        yield from _leaves(value, (*path, str(name)))


def tensors(path):
    yield from load_file(path).items()


def lines(path):
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        values = json.loads(line)
        yield f"line {number}", {name: value for name, value in values.items() if name not in NOT_COMPARED}


def report(path):
    values = json.loads(path.read_text("utf-8"))
    for key in REPORT_KEYS:
        if key in values:
            yield key, values[key]


def content(path):
    yield "", path.read_bytes()


# Kind: the files or folders, and what reads them as pairs of a place and a value.
KINDS = {
    "checkpoint params": ("rounds/*/checkpoint/params", checkpoint),
    "checkpoint optimiser state": ("rounds/*/checkpoint/opt_state", checkpoint),
    "token tables": ("rounds/start/checkpoint/token_*.npy", array),
    "embeddings": ("rounds/*/embeddings/*/embeddings.npy", array),
    "negatives": ("rounds/*/negatives/*.npy", array),
    **{f"rows, {name}": (f"cache/*/{name}.npy", array) for name in ("tokens", "offsets", "entity_rows", "languages")},
    "metrics": ("rounds/*/training/metrics.jsonl", lines),
    "report.json": ("reports/*/report.json", report),
    "predictions": ("reports/*/predictions.jsonl", content),
    "run.trec.gz": ("reports/*/run.trec.gz", content),
    "qrels": ("reports/*/qrels.txt", content),
    "links": ("links*.jsonl", content),
    "bundle weights": ("bundle/**/*.safetensors", tensors),
    "bundle index embeddings": ("bundle/index/embeddings.npy", array),
}


def found(folder, pattern):
    """The matches below a folder, in it or one of its working directories, by a name without digests."""
    paths = {}
    for path in sorted([*folder.glob(pattern), *folder.glob(f"*/{pattern}")]):
        name = re.sub(r"(?<=/cache/)([^/]+)-[0-9a-f]{8,64}(?=/)", r"\1", "/" + path.relative_to(folder).as_posix())[1:]
        if name in paths:
            sys.exit(f"{paths[name]} and {path} have one name: delete one of them.")
        paths[name] = path
    return paths


def difference(before, after):
    """What differs between two values, in words; "" where nothing does."""
    if before is ABSENT or after is ABSENT:
        return "missing before" if before is ABSENT else "missing after"
    if isinstance(before, tuple):  # a leaf with its path
        told = difference(before[0], after[0])
        return told and f"{before[1]} against {after[1]}: {told}"
    if isinstance(before, bytes):
        return "" if before == after else _bytes_differ(before, after)
    if isinstance(before, (dict, list)) or isinstance(before, (str, int, float)) or before is None:
        same = json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)
        return "" if same else _json_differs(before, after)
    before, after = np.asarray(before), np.asarray(after)
    if before.dtype != after.dtype or before.shape != after.shape:
        return f"{before.dtype}{list(before.shape)} against {after.dtype}{list(after.shape)}"
    if before.tobytes() == after.tobytes():
        return ""
    a, b = (np.frombuffer(values.tobytes(), np.uint8).reshape(before.size, -1) for values in (before, after))
    unequal = np.flatnonzero((a != b).any(axis=1))
    at = np.unravel_index(unequal[0], before.shape)
    return (
        f"{len(unequal)} of {before.size} values, first at {tuple(map(int, at))}: {before[at]!r} against {after[at]!r}"
    )


def _bytes_differ(before, after):
    if before[:2] == b"\x1f\x8b" and after[:2] == b"\x1f\x8b":
        before, after = gzip.decompress(before), gzip.decompress(after)
        if before == after:
            return "the compressed bytes, not what they unpack to"
    for number, (a, b) in enumerate(zip(before.split(b"\n"), after.split(b"\n")), 1):
        if a != b:
            return f"line {number}: {a[:160]!r} against {b[:160]!r}"
    return f"{len(before)} bytes against {len(after)}"


def _json_differs(before, after, path=""):
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            a, b = before.get(key, ABSENT), after.get(key, ABSENT)
            if a is ABSENT or b is ABSENT:
                return f"{path}/{key} is {'missing before' if a is ABSENT else 'missing after'}"
            if a != b:
                return _json_differs(a, b, f"{path}/{key}")
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (a, b) in enumerate(zip(before, after)):
            if a != b:
                return _json_differs(a, b, f"{path}/{place}")
    return f"{path} {str(before)[:120]} against {str(after)[:120]}".strip()


def compare(before, after):
    """Counts by kind, and the first difference of each."""
    failed = False
    for kind, (pattern, read) in KINDS.items():
        files, others = found(before, pattern), found(after, pattern)
        counts, first = collections.Counter(), ""
        for name in [*files, *(name for name in others if name not in files)]:
            one = dict(read(files[name])) if name in files else {}
            two = dict(read(others[name])) if name in others else {}
            counts["files"] += 1
            for place in [*one, *(place for place in two if place not in one)]:
                told = difference(one.get(place, ABSENT), two.get(place, ABSENT))
                counts["compared"] += place in one and place in two
                counts["equal"] += not told
                counts["different"] += bool(told)
                if told and not first:
                    first = f"{name} {place}: {told}".replace(" :", ":")
        nothing = bool(files) and not counts["compared"]
        failed |= bool(counts["different"]) or nothing
        line = f"{kind}: {counts['compared']} compared in {counts['files']} files, {counts['equal']} equal"
        if not files and not others:
            line = f"{kind}: none in either"
        if counts["different"]:
            line += f", {counts['different']} DIFFERENT or missing, first {first}"
        print(line + (", NOTHING COMPARED" if nothing else ""), flush=True)
    return 1 if failed else 0


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=pathlib.Path, help="folder of the results of the checkout before")
    parser.add_argument("after", type=pathlib.Path, help="folder of the results of the checkout after")
    chosen = parser.parse_args(argv)
    return compare(chosen.before, chosen.after)


if __name__ == "__main__":
    sys.exit(main())
