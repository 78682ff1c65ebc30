"""Comparison of two measurements of the same rows: what became faster, what slower, and what is noise."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stmask_deploy.errors import InputError
from stmask_deploy.wording import on_one_line

from .report import Report
from .statistics import MIN_ROUNDS, Interval, Rounds, in_units_of, speedup, verdict

_MUST_AGREE = ("threads", "frames", "draw")  # the settings that determine what is measured
_NO_CEILING = ", no ceiling"  # appended to a verdict that could not correct for changes in machine speed
# If one machine's plain convolutions changed by more than this factor, other work may have hit them and not the rows.
_STEADY = 1.3


@dataclass(frozen=True)
class Speed:
    """How one speed of a row (end to end or graphs alone) changed."""

    change: Interval | None  # None: not measured in both
    relative: Interval | None  # the same in units of plain convolutions, if both runs have them; decides the verdict
    verdict: str  # faster | slower | within noise | unclear, or why there is none


@dataclass(frozen=True)
class Change:
    """How one row changed."""

    row: str
    run: Speed  # end to end
    graphs: Speed


@dataclass(frozen=True)
class Comparison:
    """All rows of a new measurement against those of an old one."""

    old: str  # what it is compared with, in words
    changes: tuple[Change, ...]
    machine: Mapping[str, Interval]  # name of a ceiling -> speed-up of plain convolutions since the old run
    notes: tuple[str, ...]  # what else differs
    unknown: tuple[str, ...]  # missing facts that make the verdicts less certain


Judge = Callable[[Rounds, Rounds], Speed]  # takes the seconds before and now


def compare_bundles(report: Report) -> Comparison:
    """Compare the first bundle of a report with the second, which was measured in alternation with it."""
    old = {row["row"]: row for row in report["rows"] if row["bundle"] == 1}
    names = [f"{bundle['name']} (export {bundle['export_id'][:8]})" for bundle in report["bundles"]]
    changes = tuple(_change(row, old.get(row["row"]), f"not available in {names[1]}", _judge_in_turns)
                    for row in report["rows"] if row["bundle"] == 0)
    return Comparison(f"{names[1]}, in the same run", changes, {}, (), ())


def compare_reports(new: Report, old: Report) -> Comparison:
    """Compare a report with an earlier one; only the first bundle of each counts.

    A change in the speed of plain convolutions is attributed to the machine, and rows are judged by the rest. With
    the same machine and libraries only other work changes it much, and need not hit rows alike: where plain times then
    say something else, it is unclear.
    """
    before, now = _ceilings(old), _ceilings(new)
    is_same = _machine(old) == _machine(new)
    machine = {name: speedup(before[name], turns, paired=False) for name, turns in now.items() if name in before}
    old_rows = {row["row"]: row for row in old["rows"] if row["bundle"] == 0}
    changes = []
    for row in (row for row in new["rows"] if row["bundle"] == 0):
        name = _ceiling_name(row["row"])
        judge = partial(_judge_apart, before.get(name, ()), now.get(name, ()), is_same)
        changes.append(_change(row, old_rows.get(row["row"]), "not in the old run", judge))
    return Comparison(f"the run of {on_one_line(str(old.get('date', 'an unknown day')))}", tuple(changes), machine,
                      tuple(_notes(new, old)), (*_unknown(changes, old), *(_unsteady(machine) if is_same else ())))


def check_comparable(old: Report, settings: Mapping[str, Any], video: Mapping[str, Any], where: str) -> None:
    """Refuse early to compare with a report of a different measurement.

    Raises:
        InputError: it was measured on another video or with different settings that determine what is measured.
    """
    before = old["video"]
    if any(before.get(name) != video[name] for name in ("name", "width", "height")):
        raise InputError(f"{where} was measured on the video {before.get('name')} ({_size(before)}), not on "
                         f"{video['name']} ({_size(video)}); measure on the same one")
    for name in _MUST_AGREE:
        if old["settings"].get(name) != settings[name]:
            before_it = old["settings"].get(name)
            cure = (f"leave --{name} out" if before_it in (None, False) else f"give --{name}" if before_it is True
                    else f"give --{name} {before_it}")
            raise InputError(f"{where} was measured with {name} {before_it}, not {settings[name]}; {cure}")
    if before.get("sha256", video["sha256"]) != video["sha256"]:
        raise InputError(f"{where} was measured on another video of the name {video['name']}; measure on the same one")


def _size(video: Mapping[str, Any]) -> str:
    return f"{video.get('width')}x{video.get('height')}"


def _change(new: Mapping[str, Any], old: Mapping[str, Any] | None, absent: str, judge: Judge) -> Change:
    if "not_available" in new:
        return _unjudged(new["row"], "not available")
    if old is None or "not_available" in old:
        return _unjudged(new["row"], absent)
    run, graphs = (judge(old["turns"][what], new["turns"][what]) for what in ("run", "graphs"))
    return Change(new["row"], run, graphs)


def _unjudged(row: str, reason: str) -> Change:
    return Change(row, Speed(None, None, reason), Speed(None, None, reason))


def _judge_in_turns(before: Rounds, now: Rounds) -> Speed:
    """Judge a row whose two sides were measured in alternation."""
    change = speedup(before, now, paired=len(before) == len(now))
    return Speed(change, None, _verdict(change, before, now))


def _judge_apart(old_unit: Rounds, new_unit: Rounds, is_same_machine: bool, before: Rounds, now: Rounds) -> Speed:
    """Judge a row from two separate runs; plain convolutions are used if they were measured in every round of both."""
    change = speedup(before, now, paired=False)
    if len(old_unit) != len(before) or len(new_unit) != len(now):
        return Speed(change, None, f"{_verdict(change, before, now)}{_NO_CEILING}")
    relative = speedup(in_units_of(old_unit, before), in_units_of(new_unit, now), paired=False)
    told = _verdict(relative, before, now)
    is_steady = not is_same_machine or _is_steady(speedup(old_unit, new_unit, paired=False))
    return Speed(change, relative, told if is_steady or told == _verdict(change, before, now) else "unclear")


def _verdict(change: Interval, before: Rounds, now: Rounds) -> str:
    return verdict(change) if min(len(before), len(now)) >= MIN_ROUNDS else f"fewer than {MIN_ROUNDS} rounds"


def _ceilings(report: Report) -> dict[str, Rounds]:
    """Seconds per GFLOP of each ceiling that could be measured, by name; chain lengths differ between CPU and GPU."""
    return {entry["name"]: [[seconds / entry["gflop"] for seconds in turn] for turn in entry["turns"]]
            for entry in report["ceilings"] if entry.get("turns") and "not_available" not in entry}


def _ceiling_name(row: str) -> str:
    """The ceiling's name: the row without its options."""
    return row.split(",")[0]


def _unknown(changes: Sequence[Change], old: Report) -> Iterator[str]:
    names = [_ceiling_name(change.row) for change in changes if change.run.change and not change.run.relative]
    for name in dict.fromkeys(names):
        yield f"what the machine changed for {name}: plain convolutions were not measured in every round of both runs"
    if "sha256" not in old["video"]:
        yield "whether it was the same video: the old run kept its name and size alone"


def _unsteady(machine: Mapping[str, Interval]) -> Iterator[str]:
    for name, change in machine.items():
        if not _is_steady(change):
            yield (f"whether other work slowed {name} and its plain convolutions alike, which are {change.ratio:.2f}x "
                   "as fast on the same machine; measure again, or compare two bundles in one run")


def _is_steady(change: Interval) -> bool:
    return 1 / _STEADY <= change.ratio <= _STEADY


def _machine(report: Report) -> dict[str, Any]:
    """What the speed of plain convolutions depends on: hardware and libraries."""
    facts = {**report["machine"], **report["versions"]}
    return {name: value for name, value in facts.items() if name not in ("load_before", "stmask-deploy", "commit")}


def _notes(new: Report, old: Report) -> Sequence[str]:
    notes = []
    for part in ("machine", "versions"):
        for name in sorted(old[part].keys() | new[part].keys()):
            before, now = old[part].get(name), new[part].get(name)
            if before != now and name != "load_before":
                notes.append(f"{name} was {before}, is {now}")
    before, now = (report["settings"].get("warmup") for report in (old, new))
    if before != now:
        notes.append(f"--warmup was {before}, is {now}")
    before, now = (bool(report["settings"].get("cache")) for report in (old, new))
    if before != now:
        notes.append(f"--cache was {'given' if before else 'left out'}, is {'given' if now else 'left out'}")
    names = [report["bundles"][0].get("export_id") for report in (old, new)]
    if names[0] != names[1]:
        notes.append(f"the bundle was export {str(names[0])[:8]}, is {str(names[1])[:8]}")
    return notes
