"""The inputs of nodes that read what a network makes of pictures: the same name, range, default and help everywhere."""

from __future__ import annotations

from comfy_api.latest import io


def model_inputs() -> list[io.Input]:
    """What makes features of pictures."""
    return [
        io.Model.Input("model", tooltip="SD 1.x, SD 2.x or SDXL, with its patches."),
        io.Vae.Input("vae", tooltip="Encodes the pictures."),
    ]


def pictures_inputs() -> list[io.Input]:
    """Two pictures and what reads their features."""
    return [
        *model_inputs(),
        io.Conditioning.Input(
            "positive",
            tooltip="A prompt for both pictures, encoded: a photo of a dog, or an empty one if they show different "
            "things.",
        ),
        io.Image.Input("picture_a", tooltip="The picture that is known: one, or one for each picture B."),
        io.Image.Input("picture_b", tooltip="The picture to look in, of any size; a batch is searched one by one."),
    ]


def feature_inputs() -> list[io.Input]:
    """Which of a network's features are read."""
    return [
        io.Float.Input(
            "noise_level",
            default=0.26,
            min=0.01,
            max=1.0,
            step=0.01,
            tooltip="How much noise is added to the pictures, from none (0) to pure noise (1). DIFT: 0.26, for "
            "meaning; less finds details of the same thing again.",
        ),
        io.Int.Input(
            "noises",
            default=8,
            min=1,
            max=64,
            advanced=True,
            tooltip="Features are averaged over this many noises, all in one model call. DIFT: 8. Fewer take less "
            "time and memory.",
        ),
        io.String.Input(
            "block",
            default="auto",
            advanced=True,
            tooltip="The block whose output is read: auto (as DIFT: output.5 of SD 1.x and 2.x, output.2 of SDXL) or a "
            "name (output.8); a wrong name is an error that lists all.",
        ),
    ]
