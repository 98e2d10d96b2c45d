"""`muse import`: the importers of the training package as a command."""

from pathlib import Path

from tests.tools.cli.running import check_refused, files_in, muse
from tests.training.public_weights.amused import write_pipeline


def test_amused_is_imported_into_a_folder_of_its_name(tmp_path: Path) -> None:
    write_pipeline(tmp_path / "amused-32")
    ended = muse("import", "amused", "amused-32", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("checkpoints/amused-32 is amused-32: 32 px as 16 x 16 tokens")
    assert files_in(tmp_path / "checkpoints/amused-32") == {"base", "text_encoder", "tokenizer"}


def test_a_source_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ended = muse("import", "amused", "no-such-folder", cwd=tmp_path)
    check_refused(ended, "muse: expected a folder of aMUSEd or a hub id such as amused/amused-512")
    assert files_in(tmp_path / "checkpoints") == set()
