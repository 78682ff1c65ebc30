"""`results.jsonl`: a header, one line per frame and an end line, each a JSON object; readable at any time in a run."""
from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from stmask_deploy.atomic import cannot_write, check_writable
from stmask_deploy.errors import InputError, OutputError, StmaskError
from stmask_deploy.wording import shown

from .frame_source import Damage
from .result import FrameResult

SCHEMA = "stmask-results/1"
SCORE_DIGITS = 8  # decimals; float32 scores have about 7
BOX_DIGITS = 4  # decimals of a pixel


@dataclass(frozen=True)
class ResultsHeader:
    """The first line: source, bundle and options of the run."""

    source: str
    width: int  # pixels of the original frames
    height: int
    fps: float | None
    bundle: Mapping[str, Any] = field(default_factory=dict)  # plain JSON values
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """A results file read back; `frames` and `end` are the JSON objects of their lines."""

    header: ResultsHeader
    frames: list[dict[str, Any]]
    end: dict[str, Any] | None  # None if the run did not finish


_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))


class ResultsWriter:
    """Context manager that writes the header on construction and then one unbuffered line per frame.

    A killed run therefore loses at most the line being written. `finish` writes the end line; a file without it comes
    from a run that did not finish.

    Raises:
        OutputError: the file exists, or it cannot be written.
    """

    def __init__(self, path: Path, header: ResultsHeader) -> None:
        check_writable(path, overwrite=False)
        self._path = path
        self._num_frames = 0
        try:
            self._file = open(path, "x+b", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._append(_line({"type": "header", "schema": SCHEMA, **dataclasses.asdict(header)}))
        except BaseException:
            self._file.close()
            with suppress(OSError):
                path.unlink()  # an empty file would be taken for results
            raise

    def write(self, line: bytes) -> None:
        """Append the line of one frame, see `frame_line`.

        Raises:
            OutputError: it cannot be written.
        """
        self._append(line)
        self._num_frames += 1

    def finish(self, damage: Damage, *, interrupted: bool) -> None:
        """Write the end line: number of frames, damage of the input, whether the user interrupted the run.

        Raises:
            OutputError: it cannot be written.
        """
        self._append(_line({"type": "end", "frames": self._num_frames, "interrupted": interrupted,
                           "damage": damage.to_dict()}))

    def frames(self) -> Iterator[dict[str, Any]]:
        """The records of all frames, read back once everything is written; the file may have been renamed meanwhile.

        Raises:
            OutputError: they cannot be read.
            InputError: something else wrote into the file.
        """
        reader = io.BufferedReader(self._file)
        try:
            reader.seek(0)
            for number, line in enumerate(reader, start=1):
                record = _parse_line(self._path, number, line)
                if record["type"] == "frame":
                    yield record
        except OSError as error:
            raise OutputError(f"{self._path} cannot be read back ({error.strerror or error})") from error
        finally:
            reader.detach()

    def _append(self, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest):]
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file without an end line."""
        self._file.close()

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def frame_line(result: FrameResult) -> bytes:
    """The line of one frame, even if it has no instances.

    Raises:
        StmaskError: a score or box is not a finite number.
    """
    return _line(frame_record(result))


def _line(record: Mapping[str, Any]) -> bytes:
    # File names may contain undecodable bytes; they become question marks.
    return _ENCODER.encode(record).encode(errors="replace") + b"\n"


def frame_record(result: FrameResult) -> dict[str, Any]:
    """The JSON object of one frame: boxes xyxy in pixels of the original frame, class ids 1-based, masks as COCO RLE.

    Raises:
        StmaskError: a score or box is not a finite number.
    """
    columns = zip(result.ids.tolist(), result.class_ids.tolist(), result.labels, result.scores.tolist(),
                  result.boxes_px.tolist(), result.segmentations, result.origins, result.ages.tolist(), strict=True)
    instances = [{"id": identity, "class_id": class_id, "label": label, "score": round(score, SCORE_DIGITS),
                  "box": [round(side, BOX_DIGITS) for side in box], "segmentation": segmentation, "origin": origin,
                  "age": age}
                 for identity, class_id, label, score, box, segmentation, origin, age in columns]
    for instance in instances:
        if not all(map(math.isfinite, [instance["score"], *instance["box"]])):
            raise StmaskError(f"frame {result.index}: the model gave a score or box that is not a finite number; "
                              "check the checkpoint with stmask-verify")
    return {"type": "frame", "index": result.index, "time_s": round(result.time_s, 6), "instances": instances}


def read_results(path: str | Path) -> Results:
    """Read a results file, finished or not; an incomplete last line is ignored.

    Raises:
        InputError: the file cannot be read, is damaged, or is not a results file of this schema.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    # A complete file ends in a newline, so anything after the last newline is an incomplete line.
    records = [_parse_line(path, number, line) for number, line in enumerate(lines[:-1], start=1)]
    if not records or records[0]["type"] != "header":
        raise InputError(f"{path} has no header line; give a results.jsonl written by stmask-run")
    end = records.pop() if records[-1]["type"] == "end" else None
    for number, record in enumerate(records[1:], start=2):
        if record["type"] != "frame" or not isinstance(record.get("instances"), list):
            raise InputError(f"{path}, line {number}: expected a frame, found {shown(record['type'])}; the file is "
                             "damaged")
    return Results(_parse_header(path, records[0]), records[1:], end)


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number} is not JSON ({error}); the file is damaged") from error
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise InputError(f"{path}, line {number} is not a record of a results file")
    return record


def _parse_header(path: Path, record: Mapping[str, Any]) -> ResultsHeader:
    if record.get("schema") != SCHEMA:
        raise InputError(f"{path}: expected schema {SCHEMA!r}, found {shown(record.get('schema'))}; "
                         "run stmask-run again with this version")
    try:
        return ResultsHeader(**{entry.name: record[entry.name] for entry in dataclasses.fields(ResultsHeader)})
    except KeyError as error:
        raise InputError(f"{path}: the header lacks {error}; the file is damaged") from error
