"""The names that `import diffgap` offers, and what it costs."""

import subprocess
import sys

import pytest

import diffgap

NAMES = sorted(set(diffgap.__all__) - {"__version__"})


def test_the_package_itself_imports_nothing_heavy():
    script = (
        "import sys; import diffgap; from diffgap import __version__;"
        "modules = {name for name in sys.modules if name.startswith('diffgap.')};"
        "modules |= {'torch', 'ray', 'mlflow', 'pyarrow', 'numpy', 'pydantic'} & set(sys.modules);"
        "assert not modules, modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_the_object_of_its_module(name):
    assert getattr(diffgap, name).__name__ == name
    assert name in dir(diffgap)


def test_the_public_names_come_with_one_import():
    from diffgap import DiffGAP, EmbeddingStore, load_bridge, rank
    from diffgap.apply import rank as applied
    from diffgap.bridge.methods import load_bridge as loaded
    from diffgap.bridge.model import DiffGAP as Model
    from diffgap.store.store import EmbeddingStore as Store

    assert (DiffGAP, EmbeddingStore, load_bridge, rank) == (Model, Store, loaded, applied)


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'Bridge'"):
        _ = diffgap.Bridge
    with pytest.raises(ImportError):
        from diffgap import nothing  # noqa: F401
