"""Pictures of cars for what finds things of one picture in another: named points, masks, and a third to search."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from ..comfyui.client import ComfyClient
from ..toy_world.pictures import Kind, Picture, make_picture
from ..toy_world.subjects import LANDMARKS, landmark
from .graphs import Workflow
from .pipelines import fill_picture

CARS = make_picture(Kind("car", "beach", "red"), 3), make_picture(Kind("car", "city", "blue"), 8)
THIRD = make_picture(Kind("car", "forest", "white"), 5)


def named_points(picture: Picture) -> list[list[float]]:
    """Where the subject's landmarks are in a picture of the first world, [[x, y], ...] in pixels."""
    figure, left, top = picture.figure
    places = (landmark(picture.kind.subject, name, figure.width) for name in LANDMARKS[picture.kind.subject])
    return [[round(x + left, 2), round(y + top, 2)] for x, y in places]


def upload_cars(client: ComfyClient) -> list[str]:
    """Upload the first two, their subjects cut out as a mask editor saves it: the mask of the loader is the subject."""
    names = []
    for name, picture in zip("ab", CARS, strict=True):
        image = Image.fromarray(picture.image)
        image.putalpha(Image.fromarray(np.where(picture.mask, 0, 255).astype(np.uint8)))
        names.append(client.upload_image(image, f"car-{name}.png"))
    return names


def fill_teaching(client: ComfyClient, workflow: Workflow) -> Workflow:
    """Put the toy checkpoint, a car that teaches and a car to find into the workflow that teaches."""
    a, b = upload_cars(client)
    filled = fill_picture(workflow, "", "Picture that teaches", a).fill("Picture to search", image=b)
    return _marked(filled, "Teach what is marked", "Picture that teaches")


def fill_cars(client: ComfyClient, workflow: Workflow) -> Workflow:
    """Put the cars, the toy checkpoint and the first car's points into the workflow that looks in another picture."""
    a, b = upload_cars(client)
    filled = fill_picture(workflow, "", "Picture A", a).fill("Picture B", image=b)
    filled = filled.fill("Find the points", points=json.dumps(named_points(CARS[0])))
    return _marked(filled, "Find what is marked", "Picture A")


def _marked(workflow: Workflow, user: str, loader: str) -> Workflow:
    """The mask that is marked in the picture itself, in place of everything of one colour."""
    filled = workflow.fill(user, mask=[workflow.node(loader), 1])
    del filled.graph[filled.node("Mark by colour")]
    return filled
