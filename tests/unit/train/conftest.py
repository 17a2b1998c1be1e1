import pytest
import torch
from training_data import build_toy_dataset


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory):
    return build_toy_dataset(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors here are too small to share between threads; on busy cores waiting for one another takes longest."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
