"""What depends on the model family. No other package knows the modules of a network.

To read in this order: `sites` (a place where attention is computed, and what goes into it), `family` (what every
family provides, and which one a model belongs to) with `offers` (what not every family has). `unet` (SD 1.x, SD 2.x and
SDXL), `unet_gradients` (what such a network computes after a site), `unet_blocks` (what its blocks put out).
`transformer` (all others) with `layout` (what there is to know about one) and `layouts`: a record for each class;
`rebound` (networks that do not announce their attention), `transformer_gradients` (what follows the last attention to
the text). `gradient_memory` is what both kinds of gradients take. A new family is a record, or a file beside `unet`.
"""
