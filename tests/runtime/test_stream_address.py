from __future__ import annotations

import pytest

from stmask_deploy.runtime.stream_address import is_address, public_address


@pytest.mark.parametrize(("source", "expected"), [
    ("rtsp://host/live", True), ("HTTP://host", True), ("udp://239.0.0.1:5000", True), ("a+b-c.1://x", True),
    ("clip.mp4", False), ("c:/clip.mp4", False), ("c:\\clip.mp4", False), ("folder//clip", False), ("://x", False),
    ("1://x", False), ("", False), (0, False), (None, False)])
def test_what_is_an_address(source: object, expected: bool) -> None:
    assert is_address(source) is expected


@pytest.mark.parametrize(("address", "expected"), [
    ("rtsp://host/live", "rtsp://host/live"),
    ("RTSP://me:pa@ss@host:554/live/1?key=secret#x", "rtsp://host:554/live/1"),
    ("rtsp://me@host", "rtsp://host"),
    ("http://host/live?next=http://other/x", "http://host/live"),
    ("rtsp://me:pass?word#@host/live?x", "rtsp://..."),
    ("rtsp://me:pass/word@host/live", "rtsp://host/live"),
    ("rtsp://me:12/34@host/live", "rtsp://host/live"),
    ("rtsp://me:pa@ss/word@host/live", "rtsp://host/live"),
    ("rtsp://me:pass@host/a@b/c", "rtsp://b/c"),
    ("http://host/live?mail=a@b&key=secret", "http://..."),
    ("http://me:pass@host?mail=a@b&key=secret", "http://host"),
    ("rtsp://10.0.0.9:554/user=me&password=secret&channel=1&stream=0.sdp?", "rtsp://10.0.0.9:554"),
    ("rtsp://host/cam/realmonitor?channel=2&subtype=0&key=1234", "rtsp://host/cam/realmonitor?channel=2&subtype=0"),
    ("rtsp://host/live?channel=secret&mychannel=1&stream=12345", "rtsp://host/live"),
    ("rtsp://host?user=me&password=p/w", "rtsp://host"),
    ("rtsp://[::1]:554/live", "rtsp://[::1]:554/live"),
    ("udp://@239.0.0.1:5000?pkt_size=1316", "udp://239.0.0.1:5000")])
def test_messages_and_results_hold_no_password(address: str, expected: str) -> None:
    assert public_address(address) == expected
