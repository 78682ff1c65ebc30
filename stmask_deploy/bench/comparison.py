"""Two measurements of the same rows: what became faster, what slower, and what is noise."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stmask_deploy.errors import InputError

from .report import Report
from .statistics import MIN_ROUNDS, SAME, Interval, speedup, verdict

_MUST_AGREE = ("threads", "frames", "draw")  # of the settings: they decide what is done


@dataclass(frozen=True)
class Change:
    """How one row changed."""

    row: str
    run: Interval | None  # end to end; None: not measured in both
    graphs: Interval | None
    run_verdict: str  # faster | slower | within noise, or why there is none
    graphs_verdict: str


@dataclass(frozen=True)
class Comparison:
    """All rows of a new measurement against those of an old one."""

    old: str  # what it is compared with, in words
    changes: tuple[Change, ...]
    machine: Mapping[str, Interval]  # name of a ceiling -> how many times as fast plain convolutions are now
    notes: tuple[str, ...]  # what else differs


def compare_bundles(report: Report) -> Comparison:
    """The first bundle of a report against its second, which took turns with it."""
    old = {row["row"]: row for row in report["rows"] if row["bundle"] == 1}
    changes = tuple(_change(row, old.get(row["row"]), SAME, paired=True)
                    for row in report["rows"] if row["bundle"] == 0)
    names = [f"{bundle['name']} (export {bundle['export_id'][:8]})" for bundle in report["bundles"]]
    return Comparison(f"{names[1]}, in the same run", changes, {}, ())


def compare_reports(new: Report, old: Report) -> Comparison:
    """A report against an earlier one; only the first bundle of each counts.

    What plain convolutions changed between the two is the machine's: a row has changed only as far as it changed more.
    """
    before = {entry["name"]: entry["turns"] for entry in old["ceilings"] if entry.get("turns")}
    machine = {entry["name"]: speedup(before[entry["name"]], entry["turns"], paired=False)
               for entry in new["ceilings"] if entry["turns"] and entry["name"] in before}
    old_rows = {row["row"]: row for row in old["rows"] if row["bundle"] == 0}
    changes = tuple(_change(row, old_rows.get(row["row"]), machine.get(_ceiling_name(row["row"]), SAME), paired=False)
                    for row in new["rows"] if row["bundle"] == 0)
    return Comparison(f"the run of {old.get('date', 'an unknown day')}", changes, machine, tuple(_notes(new, old)))


def check_comparable(old: Report, settings: Mapping[str, Any], video: Mapping[str, Any], where: str) -> None:
    """Refuse early to compare with a report of something else.

    Raises:
        InputError: it was measured on another video or with settings that decide what is done.
    """
    if old["video"] != dict(video):
        raise InputError(f"{where} was measured on the video {old['video'].get('name')}, not on {video['name']}; "
                         "measure on the same one")
    for name in _MUST_AGREE:
        if old["settings"].get(name) != settings[name]:
            raise InputError(f"{where} was measured with {name} {old['settings'].get(name)}, not {settings[name]}; "
                             f"give the same --{name}")


def _change(new: Mapping[str, Any], old: Mapping[str, Any] | None, machine: Interval, *, paired: bool) -> Change:
    if "not_available" in new:
        return Change(new["row"], None, None, "not available", "not available")
    if old is None or "not_available" in old:
        return Change(new["row"], None, None, "not in the old one", "not in the old one")
    intervals, verdicts = [], []
    for what in ("run", "graphs"):
        before, now = old["turns"][what], new["turns"][what]
        interval = speedup(before, now, paired=paired and len(before) == len(now))
        enough = min(len(before), len(now)) >= MIN_ROUNDS
        intervals.append(interval)
        verdicts.append(verdict(interval, machine) if enough else f"fewer than {MIN_ROUNDS} rounds")
    return Change(new["row"], intervals[0], intervals[1], verdicts[0], verdicts[1])


def _ceiling_name(row: str) -> str:
    """The ceiling's name is where a row runs, its options left out."""
    return row.split(",")[0]


def _notes(new: Report, old: Report) -> Sequence[str]:
    notes = []
    for part in ("machine", "versions"):
        for name in sorted(old[part].keys() | new[part].keys()):
            before, now = old[part].get(name), new[part].get(name)
            if before != now and name != "load_before":
                notes.append(f"{name} was {before}, is {now}")
    names = [report["bundles"][0].get("export_id") for report in (old, new)]
    if names[0] != names[1]:
        notes.append(f"the bundle was export {str(names[0])[:8]}, is {str(names[1])[:8]}")
    return notes
