import subprocess
import sys

from worker.scratch import Scratch, is_in_use

HOLD_A_FOLDER = """
import sys
from pathlib import Path
from worker.scratch import Scratch
print(Scratch(Path(sys.argv[1])).new_folder(), flush=True)
sys.stdin.read()
"""


def test_closing_removes_everything(tmp_path):
    assert not is_in_use(tmp_path)
    scratch = Scratch(tmp_path)
    assert is_in_use(tmp_path)
    (scratch.new_folder() / "file").write_text("x")
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_owner_s_folder_is_removed_and_a_living_one_s_is_kept(tmp_path):
    living = Scratch(tmp_path)
    kept = living.new_folder()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_FOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        abandoned = owner.stdout.readline().strip()
        owner.kill()
    assert abandoned
    newcomer = Scratch(tmp_path)
    assert kept.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        folder.parent.name for folder in (kept, newcomer.new_folder())
    )
    living.close()
    newcomer.close()
