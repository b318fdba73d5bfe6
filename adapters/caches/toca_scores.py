"""ToCa's scores of tokens, from the queries and keys of an attention layer."""

from __future__ import annotations

import torch

from genrun.adapters.shapes import Attention, Queries, Scores, TextTokens, Tokens

QUERIES = 64
"""Queries that see the attention map: it costs 64 n products a head instead of n^2."""
CHUNK = 4096
"""Tokens whose attention to the text is in memory at a time."""
NEIGHBOURS = 4


def influence(query: Queries, key: Tokens, heads: int) -> Scores:
    """Compute s1: the attention that each token receives, on average 1.

    Args:
        query: (B, n, heads d), before positional rotation.
        key: the same of the keys.
        heads: of the attention.

    Returns:
        (B, n), float32.
    """
    picked = torch.linspace(0, query.shape[1] - 1, min(QUERIES, query.shape[1]), device=query.device).long()
    weights = _attention(query[:, picked], key, heads)
    return weights.mean(dim=(1, 2)) * key.shape[1]


def control(query: Tokens, text_key: TextTokens, heads: int) -> Scores:
    """Compute s2: the entropy of each token's attention to the text, between 0 and 1, (B, n)."""
    length = text_key.shape[1]
    if length < 2:
        return query.new_zeros(query.shape[:2], dtype=torch.float32)
    parts = []
    for chunk in query.split(CHUNK, dim=1):
        weights = _attention(chunk, text_key, heads).mean(dim=1)
        parts.append(torch.special.entr(weights).sum(dim=-1) / torch.tensor(float(length)).log().item())
    return torch.cat(parts, dim=1)


def spread(score: Scores, bonus: float) -> Scores:
    """Raise the best of every run of four neighbours (s4) by `bonus` times its own score; (B, n)."""
    batch, count = score.shape
    padded = torch.nn.functional.pad(score, (0, -count % NEIGHBOURS), value=-torch.inf)
    runs = padded.view(batch, -1, NEIGHBOURS)
    best = runs.argmax(dim=-1, keepdim=True)
    raised = runs.scatter_add(-1, best, runs.gather(-1, best).clamp(min=0) * bonus)
    return raised.view(batch, -1)[:, :count]


def _attention(query: Queries, key: Tokens, heads: int) -> Attention:
    """Return the softmax of the products of heads of unit RMS, (B, heads, q, n), float32."""
    q, k = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
    q, k = (x / x.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6) for x in (q, k))
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
