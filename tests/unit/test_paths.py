import pytest

from sentinel.errors import PathNotAllowed
from sentinel.paths import check_roots, own_name


@pytest.fixture
def root(tmp_path):
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("path", "name"), [("one", "one"), ("./one/", "one"), (".", "models"), ("one/..", "models"), ("link", "link")]
)
def test_every_path_has_a_name_of_its_own(root, monkeypatch, path, name):
    (root / "link").symlink_to(root / "one")
    monkeypatch.chdir(root)
    assert own_name(path) == name


def test_paths_under_a_root_are_allowed(root):
    assert check_roots(root / "one", [root]) == (root / "one").resolve()
    assert check_roots(str(root), [root]) == root.resolve()


def test_no_roots_given_allows_everything_and_an_empty_list_nothing(root):
    assert check_roots(root / "one", None) == (root / "one").resolve()
    with pytest.raises(PathNotAllowed):
        check_roots(root / "one", [])


@pytest.mark.parametrize("path", ["../secret", "one/../../secret", "../models-of-others", "/", "../secret/missing"])
def test_ways_out_are_refused(root, path):
    with pytest.raises(PathNotAllowed, match="outside"):
        check_roots(root / path, [root])


def test_a_symlink_out_is_refused_and_a_root_may_be_one(root):
    (root / "link").symlink_to(root.parent / "secret")
    with pytest.raises(PathNotAllowed):
        check_roots(root / "link", [root])
    (root.parent / "alias").symlink_to(root)
    assert check_roots(root / "one", [root.parent / "alias"]) == (root / "one").resolve()
