"""What a network makes of a picture on its way to a prediction: the outputs of its blocks, and what they are used for.

To read in this order: `block_outputs` (the observer), `picture_features` (from an IMAGE to features), `correspondence`
(points and masks of one picture in another); `classifier` (what was taught by pictures, and its file), `teaching`
(which teaches it and uses it).
"""
