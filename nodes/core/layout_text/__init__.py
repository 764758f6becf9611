"""A layout as people and language models write it: from a text to boxes, and where in the text each box stands.

In reading order: `places` (left half, top right corner), `literals` (the lists of JSON and Python, with their place in
the text), `written` (a box as it is written, before its numbers are understood), `planners` (which of those lists are
boxes: the forms that language models answer in), `lines` (dog: left half), `units` (what the numbers mean), `reading`
(all of it).
"""
