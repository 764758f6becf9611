"""What depends on the model family; all that knows the modules of a network stands here.

To read in this order: `sites` (a place where attention is computed, and what goes into it), `family` (what a family has
to tell, and which one a model belongs to), `unet` (SD 1.x, SD 2.x and SDXL), `unet_gradients` (what such a network
computes behind a site). A new family is a file beside `unet`.
"""
