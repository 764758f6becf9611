"""Abs-Grad-SAM: how much each element of the model's prediction depends on a word's cross-attention.

To read in this order: `definition` (what is computed, and the solver that follows it literally), `structured` (the same
numbers in far fewer passes, where only a norm and a convolution mix positions), `derivative` (the part of the chain
rule before that: the features after the attention, in closed form), `patches` (transformers: a few dozen passes) and
`parallel_block` (some of them: none), `loss_scale` (how autograd takes every gradient).
"""
