"""The methods, in pure PyTorch: no ComfyUI here. This is the table of contents, in reading order.

    layout       boxes with words: where things are to go; layout_text/ reads them from a text
    words/       from a prompt to its subjects and the positions of their tokens; English in words/english/
    attention/   where the model looks at a word: cross-attention probabilities of its tokens, over layers; refining
    gradients/   which parts of a prediction depend on the attention to a word: Abs-Grad-SAM
    maps/        the saliency maps that both make: filters, thresholds and masks, colours, measures
    methods/     what is done with a mask, and other papers' methods: one paper, one file

Each package says in its own `__init__` what is in it and in which order to read; `choices` checks every choice by name.

What the code calls Abs-Grad-SAM is arXiv 2408.16232; Experiments 1 and 2 are those of Devaney, Pathania, Andrade and
Maheshwari, *Image Generation via Stable Diffusion Using Latent Space Manipulation*.
"""
