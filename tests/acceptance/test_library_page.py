"""docs/library.md: its code does what the page says, from top to bottom."""

import re
from pathlib import Path

from sentinel.models.evaluation import count_parameters

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert (tmp_path / "outputs/run/checkpoint/config.json").is_file()
    assert names["result"].checkpoint == "outputs/run/checkpoint"
    assert count_parameters(names["again"]) < count_parameters(names["dense"])
    assert names["healed"].best_step in {2, 4}
    assert all(repair.error_after < repair.error_before for repair in names["repairs"])
