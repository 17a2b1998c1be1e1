import pytest
from training_data import build_toy_dataset


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory):
    return build_toy_dataset(tmp_path_factory.mktemp("toy"))
