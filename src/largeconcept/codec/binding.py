"""The form of a sentence in a fixed number of channels: its tokens, each bound to its place, laid over each other.

Shape letters: N sentences, T tokens, D width, C concept dimension, F form channels (the last ones of a concept).

A vector that shall give a sentence back word for word must say which token stands where. A network that pools its
tokens learns that very slowly. Here it is built in, as in holographic reduced representations (Plate 1995, "Holographic
Reduced Representations", IEEE Transactions on Neural Networks 6(3)), with the element-wise binding of
multiply-add-permute codes (Gayler 1998): every place t has a key of F signs, the token's state is multiplied by it, and
all tokens are summed. Multiplying the sum by the key of place t again gives the token's state back, plus the others
under random signs. They are noise, √((T - 1) D / F) times as strong as the signal in each of the D channels, and so
√((T - 1) / F) times in a product with the state of a token, which is what decides between tokens.

A decoder that writes from left to right knows more and more of those others. It binds what it has written in the same
way, so that the noise of the past can be taken off: the last words of a long sentence are then as easy as the first.

A predicted concept may hold the form of a sentence that was read while another is to be written: a summary takes over
words of the first sentence, but not at their places. :class:`FormReader` finds them there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def compared_dim(width: int) -> int:
    """Return K, the channels in which :class:`FormReader` compares tokens of width D."""
    return min(width, 128)


class PositionBinding(nn.Module):
    """Binds token states to their places, and takes them out again.

    Keys and maps have the values described above at the start only: all of them are trained.

    Args:
        width: D, of the states.
        concept_dim: C.
        dim: F; at least D, so that the map from states to it loses nothing.
        places: most tokens of a sentence.
    """

    def __init__(self, width: int, concept_dim: int, dim: int, places: int) -> None:
        super().__init__()
        self.dim = dim
        self.keys = nn.Parameter(torch.randint(0, 2, (places, dim)).float() * 2 - 1)
        self.bind = nn.Linear(width, dim, bias=False)
        self.unbind = nn.Linear(dim, width, bias=False)
        self.unbind_written = nn.Linear(dim, width, bias=False)
        self.scale = nn.Linear(concept_dim, 1)
        frame_FD = torch.linalg.qr(torch.randn(dim, width))[0] * (dim / width) ** 0.5
        with torch.no_grad():
            self.bind.weight.copy_(frame_FD)
            # The transpose takes a state back to itself; twice its size, so that it outweighs the input's other parts.
            self.unbind.weight.copy_(2 * width / dim * frame_FD.t())
            self.unbind_written.weight.copy_(-self.unbind.weight)
            # A form is scaled to variance one; the sum of a sentence of twenty-odd tokens was about five times that.
            self.scale.weight.zero_()
            self.scale.bias.fill_(-1.4)

    def forward(self, hidden_NTD: Tensor, padding_NT: Tensor) -> Tensor:
        """Return the (N, F) float32 form, not yet normalised, of right-padded token states."""
        bound = self.bind(hidden_NTD) * self.keys[: hidden_NTD.shape[1]]
        total: Tensor = bound.float().masked_fill(padding_NT[..., None], 0.0).sum(dim=1)
        return total

    def hints(self, concepts_NC: Tensor, inputs_NTD: Tensor) -> Tensor:
        """Return (N, T, D): what the form says about each token to be written.

        Args:
            concepts_NC: concepts, the form in the last channels.
            inputs_NTD: the decoder's normalised inputs: something in front, then the tokens but the last.
        """
        keys = self.keys[: inputs_NTD.shape[1]]
        bound = self.bind(inputs_NTD[:, 1:]) * keys[:-1]
        written = F.pad(bound.float(), (0, 0, 1, 0)).cumsum(dim=1)
        return self._hint(concepts_NC[:, None], written, keys)

    def hint(self, concepts_NC: Tensor, written_NF: Tensor, input_ND: Tensor, place: int) -> Tensor:
        """One step of :meth:`hints`: returns (N, D), and adds the input to ``written_NF`` in place."""
        if place:
            written_NF += self.bind(input_ND) * self.keys[place - 1]
        return self._hint(concepts_NC, written_NF, self.keys[place])

    def _hint(self, concepts: Tensor, written: Tensor, keys: Tensor) -> Tensor:
        size = F.softplus(self.scale(concepts))
        out: Tensor = self.unbind(concepts[..., -self.dim :] * keys) + self.unbind_written(written * (size * keys))
        return out


class FormReader(nn.Module):
    """Finds in a form what followed the token just written, wherever it stands.

    What stands at each of the first places is taken out. One attention head then compares the decoder's state with what
    stands one place *before*, and reads what stands at the place: a head that goes on copying, which transformers learn
    late (Olsson et al. 2022, "In-context Learning and Induction Heads", https://arxiv.org/abs/2209.11895), is there
    from the start. Weights say how much of it is believed.

    Shape letters as above, R places, K channels in which tokens are compared.

    Args:
        binding: whose forms are read.
        places: R, how many.
    """

    def __init__(self, binding: PositionBinding, places: int) -> None:
        super().__init__()
        dim, width = binding.bind.weight.shape
        size = compared_dim(width)
        self.query = nn.Linear(2 * width, size)
        self.key = nn.Linear(dim, size)
        self.start = nn.Parameter(torch.zeros(size))
        self.place = nn.Parameter(torch.zeros(places))
        self.nothing = nn.Parameter(torch.zeros(1))
        self.gain = nn.Parameter(torch.full((width,), 0.25))
        with torch.no_grad():
            # At first a token is bound and compared with what is there, in the channels that bind most strongly; of the
            # state after the first layer nothing is believed yet.
            left, strength, right = torch.linalg.svd(binding.bind.weight.t().float(), full_matrices=False)
            self.query.weight.zero_()
            self.query.weight[:, :width] = (left[:, :size] * strength[:size].sqrt()).t()
            self.key.weight.copy_(strength[:size, None].sqrt() * right[:size])
            self.query.bias.zero_()
            self.key.bias.zero_()

    def take_out(self, form_NF: Tensor, binding: PositionBinding) -> tuple[Tensor, Tensor]:
        """Return (N, R, D), what stands at each place, and (N, R, K), the keys of what stands before it."""
        bound = form_NF[:, None] * binding.keys[: len(self.place)]
        # What all places have in common tells none from another; how strong a form is does not matter.
        known = bound - bound.mean(dim=1, keepdim=True)
        keys = self.key(F.rms_norm(known, (known.shape[-1],)))
        before = torch.cat([self.start.to(keys.dtype).expand(len(keys), 1, -1), keys[:, :-1]], dim=1)
        return binding.unbind(bound), before

    def forward(self, inputs: Tensor, hidden: Tensor, here: Tensor, keys: Tensor) -> Tensor:
        """Return what is read, (N, T, D), for normalised inputs and states of the decoder, (N, T, D)."""
        query = self.query(torch.cat([inputs, F.rms_norm(hidden, hidden.shape[-1:]).to(inputs.dtype)], dim=-1))
        scores = torch.matmul(query, keys.transpose(1, 2)).float() / math.sqrt(here.shape[-1]) + self.place
        nothing = self.nothing.expand(*scores.shape[:-1], 1)
        weights = torch.cat([scores, nothing], dim=-1).softmax(dim=-1)[..., :-1]
        return self.gain * torch.matmul(weights.to(here.dtype), here)
