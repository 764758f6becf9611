"""The fixed cases on which pipelines are compared: a reference `A on S` and a prompt for another subject or scene."""

from __future__ import annotations

from dataclasses import dataclass

from .pictures import COLOUR_NAMES, SCENE_NAMES, SUBJECT_NAMES, Kind, Picture, make_picture

HELD_OUT = 1_000_000  # no seed from here on was trained on


@dataclass(frozen=True)
class Case:
    """A reference picture's kind and seed, what the prompt asks for, and the sampler's seed."""

    reference: Kind
    picture_seed: int
    subject: str
    scene: str
    seed: int

    @property
    def prompt(self) -> str:
        """The prompt, in the documents' form."""
        return f"{self.subject} on {self.scene}"

    @property
    def name(self) -> str:
        """A name for files and tables."""
        return f"{self.reference.subject}-to-{self.subject}-on-{self.scene}"

    def picture(self) -> Picture:
        """Draw the reference."""
        return make_picture(self.reference, self.picture_seed)


def keep_the_context() -> list[Case]:
    """42 cases `A on S` → `B on S`: every scene with six pairs of subjects.

    Every subject 6 times a reference and 6 times a prompt.
    """
    cases = []
    for s, scene in enumerate(SCENE_NAMES):
        for k in range(1, 7):
            a = (s + k) % 7
            kind = Kind(SUBJECT_NAMES[a], scene, COLOUR_NAMES[(s + 2 * k) % 6])
            cases.append(Case(kind, HELD_OUT + len(cases), SUBJECT_NAMES[(a + k) % 7], scene, 51828 + len(cases)))
    return cases


def keep_the_subject() -> list[Case]:
    """42 cases `A on S` → `A on T`: every subject on six scenes, each prompted onto another one."""
    cases = []
    for a, subject in enumerate(SUBJECT_NAMES):
        for k in range(1, 7):
            s = (a + k) % 7
            kind = Kind(subject, SCENE_NAMES[s], COLOUR_NAMES[(a + 2 * k) % 6])
            place = SCENE_NAMES[(s + k) % 7]
            cases.append(Case(kind, HELD_OUT + 1000 + len(cases), subject, place, 51828 + len(cases)))
    return cases
