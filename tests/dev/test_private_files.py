"""Secrets and logs of the development stack: private from the first byte, and never made anew for data that need the old ones."""

import os
import stat
from pathlib import Path

import pytest

from dev.kept_secrets import keep_secret
from shared.errors import StackError
from shared.private_files import open_private_log, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_log_file_is_private_also_if_it_was_open_to_others(tmp_path: Path) -> None:
    new, old = tmp_path / "new.log", tmp_path / "stack.log"
    old.write_text("before\n")
    old.chmod(0o644)
    for path in (new, old):
        with os.fdopen(open_private_log(path), "a") as file:
            file.write("after\n")
    assert [mode(new), mode(old)] == [0o600, 0o600]
    assert old.read_text() == "before\nafter\n"


def test_a_left_over_file_that_others_may_read_gets_no_secret(tmp_path: Path) -> None:
    left = tmp_path / ".a.secret.part"
    left.write_text("")
    left.chmod(0o666)
    with left.open() as reader:
        write_private(tmp_path / "a.secret", "a secret")
        assert reader.read() == ""
    assert mode(tmp_path / "a.secret") == 0o600


def test_a_secret_that_data_need_is_not_made_anew(tmp_path: Path) -> None:
    secret, data = tmp_path / "master.key", tmp_path / "data"
    made = keep_secret(secret, needed_by=data)
    data.mkdir()
    assert keep_secret(secret, needed_by=data) == made
    secret.unlink()
    with pytest.raises(StackError, match="put the file back"):
        keep_secret(secret, needed_by=data)
    assert not secret.exists()
