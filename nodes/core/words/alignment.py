"""Which tokens of one prompt take the place of which tokens of another: Prompt-to-Prompt's word tables.

Words are found through the tokens that the text encoder made of the prompt, so weights, punctuation, several chunks
and long words are right for every encoder. `swapped` is for prompts in which words were exchanged one for one,
`refined` for prompts to which words were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from .scripts import is_unspaced
from .subjects import shorten
from .tokens import TokenSpan


@dataclass(frozen=True)
class ChunkedPrompt:
    """A prompt as its text encoder reads it.

    tokens: of its words, in order. chunks: how many tokens each chunk of the encoder's output has, with begin, end and
    padding (77 for CLIP); positions count through all chunks.
    """

    prompt: str
    tokens: tuple[TokenSpan, ...]
    chunks: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of tokens of the encoder's output."""
        return sum(self.chunks)

    def words(self) -> list[tuple[str, tuple[int, ...]]]:
        """Each word or punctuation mark in lower case, with the positions of its tokens."""
        words: list[list[TokenSpan]] = []
        for token in self.tokens:
            if words and self._continues(words[-1][-1], token):
                words[-1].append(token)
            else:
                words.append([token])
        return [
            (self.prompt[word[0].start : word[-1].end].lower(), tuple(token.position for token in word))
            for word in words
        ]

    def frames(self) -> list[tuple[int, tuple[int, ...]]]:
        """For each chunk the position of its begin token, and those of its end token and padding."""
        taken = {token.position for token in self.tokens}
        frames, base = [], 0
        for length in self.chunks:
            last = max((position for position in range(base, base + length) if position in taken), default=base)
            frames.append((base, tuple(range(last + 1, base + length))))
            base += length
        return frames

    def _continues(self, before: TokenSpan, token: TokenSpan) -> bool:
        """Whether a token belongs to the word of the token before it."""
        if token.start < before.end:  # the vectors of an embedding
            return True
        joined = self.prompt[before.end - 1] + self.prompt[token.start]
        return token.start == before.end and all(each.isalnum() and not is_unspaced(each) for each in joined)


@dataclass(frozen=True)
class Alignment:
    """What the columns of a target prompt's attention are made of.

    lengths: tokens of the source and of the target prompt. shares: (i, j, weight): the attention to target token j has
    `weight` times the source's attention to its token i. own: target tokens that keep their own attention.
    """

    lengths: tuple[int, int]
    shares: tuple[tuple[int, int, float], ...]
    own: frozenset[int] = frozenset()


def swapped(source: ChunkedPrompt, target: ChunkedPrompt) -> Alignment:
    """Word n of the source prompt stands for word n of the target prompt.

    Words of as many tokens are paired token by token; otherwise every token of the target's word takes an equal share
    of all tokens of the source's. Begin, end and padding are paired chunk by chunk. Raises ValueError, with both
    numbers, for prompts of different numbers of words.
    """
    before, after = source.words(), target.words()
    if len(before) != len(after):
        raise ValueError(
            f"'{shorten(source.prompt)}' has {len(before)} words and '{shorten(target.prompt)}' has {len(after)}, but "
            "words can be swapped only one for one. Write as many words, or choose refine"
        )
    shares: list[tuple[int, int, float]] = []
    for (_, old), (_, new) in zip(before, after, strict=True):
        if len(old) == len(new):
            shares += [(i, j, 1.0) for i, j in zip(old, new, strict=True)]
        else:
            shares += [(i, j, 1 / len(new)) for j in new for i in old]
    framed, own = _framed(source, target)
    return Alignment((source.length, target.length), (*shares, *framed), own)


def refined(source: ChunkedPrompt, target: ChunkedPrompt) -> Alignment:
    """Tokens that both prompts have, in the same order, stand for each other; the target's others are its own.

    The longest such sequence is found by Needleman and Wunsch (a gap costs nothing, tokens that differ are never
    paired). What follows the target's end is paired with the same position of the source.
    """
    before, after = _sequence(source), _sequence(target)
    pairs = {j: i for i, j in _common([key for key, _ in before], [key for key, _ in after])}
    shares = [(before[i][1], after[j][1], 1.0) for j, i in pairs.items()]
    own = {position for j, (_, position) in enumerate(after) if j not in pairs}
    end = after[-1][1]
    tail = range(end + 1, target.length)
    shares += [(j, j, 1.0) for j in tail if j < source.length]
    own |= {j for j in tail if j >= source.length}
    framed, alone = _framed(source, target)
    inner = [share for share in framed if 0 < share[1] < end]
    return Alignment((source.length, target.length), (*shares, *inner), frozenset(own | {j for j in alone if j < end}))


def described(alignment: Alignment, source: ChunkedPrompt, target: ChunkedPrompt) -> str:
    """A line for each word of the target prompt: the words of the source prompt that it takes its attention from."""
    owner = {position: word for word, positions in source.words() for position in positions}
    lines = []
    for word, positions in target.words():
        there = dict.fromkeys(owner[i] for i, j, _ in alignment.shares if j in positions and i in owner)
        lines.append(f"{word} < {', '.join(there)}" if there else f"{word} (its own)")
    return "\n".join(lines)


def same_words(source: ChunkedPrompt, target: ChunkedPrompt) -> bool:
    """Whether the prompts have as many words, so that they can be swapped one for one."""
    return len(source.words()) == len(target.words())


def _framed(source: ChunkedPrompt, target: ChunkedPrompt) -> tuple[list[tuple[int, int, float]], frozenset[int]]:
    """Begin, end and padding of each chunk paired with those of the source's chunk; those without one are own."""
    shares: list[tuple[int, int, float]] = []
    own: set[int] = set()
    theirs = source.frames()
    for number, (begin, tail) in enumerate(target.frames()):
        if number < len(theirs):
            there, other = theirs[number]
            shares += [(i, j, 1.0) for i, j in zip((there, *other), (begin, *tail), strict=False)]
        else:
            own |= {begin, *tail}
    return shares, frozenset(own)


def _sequence(prompt: ChunkedPrompt) -> list[tuple[object, int]]:
    """Begin, the tokens and the last end of a prompt, each with what makes two of them equal, and its position."""
    last = {positions[-1] for _, positions in prompt.words()}
    texts = [
        ((prompt.prompt[token.start : token.end].lower(), token.position in last), token.position)
        for token in prompt.tokens
    ]
    # the vectors of an embedding have one text; they are equal only in the same order
    numbered = [
        ((key, number), position)
        for _, group in groupby(zip(texts, prompt.tokens, strict=True), key=lambda each: each[1].start)
        for number, ((key, position), _) in enumerate(group)
    ]
    frames = prompt.frames()
    end = frames[-1][1][:1] or (prompt.length - 1,)
    return [("begin", frames[0][0]), *numbered, ("end", end[0])]


def _common(one: Sequence[object], other: Sequence[object]) -> list[tuple[int, int]]:
    """Pairs of equal items of two sequences in a longest common subsequence, from the end to the beginning."""
    lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            diagonal = lengths[i - 1][j - 1] + (1 if a == b else -1)
            lengths[i][j] = max(lengths[i][j - 1], lengths[i - 1][j], diagonal)
    pairs, i, j = [], len(one), len(other)
    while i and j:
        if lengths[i][j] == lengths[i][j - 1]:
            j -= 1
        elif lengths[i][j] == lengths[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs
