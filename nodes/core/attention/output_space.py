"""Where a picture's places are like a word in what an attention puts out (ConceptAttention: Helbling et al. 2025).

Where text and picture share one attention, words have output vectors as well. How well a place's vector agrees with
that of a word is a second map of the word, beside the attention that the place pays to it:

    A_s[q] = o_q . mean_{t in s} o_t - min_q'        o the attention's output, all heads one after the other

These are scores: only differences between places mean anything, and maps of several layers add up as they are, so
layers with long vectors count more.
"""

from __future__ import annotations

from torch import Tensor

ATTENTION, OUTPUT = "attention", "output"
SPACES = (ATTENTION, OUTPUT)


def output_likeness(out: Tensor, columns: Tensor, text: slice, picture: slice) -> Tensor:
    """Maps of each subject, above their smallest value: float32 [S,B,Q].

    out: [B,L,H*d] of words and places. columns: [B,T,S], 1 where token t belongs to subject s. text, picture: where the
    T tokens and the Q places are among the L.
    """
    sets = columns.to(device=out.device, dtype=out.dtype).float()
    sets = sets / sets.sum(dim=1, keepdim=True).clamp_min(1)
    words = sets.transpose(1, 2) @ out[:, text].float()
    scores = words @ out[:, picture].float().transpose(1, 2)
    return (scores - scores.amin(dim=-1, keepdim=True)).transpose(0, 1)
