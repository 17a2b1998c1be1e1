import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors here are too small to share between threads; on busy cores waiting for one another takes longest."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
