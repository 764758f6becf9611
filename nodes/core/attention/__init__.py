"""Where the model looks at words: the cross-attention of a layer, read for the tokens of each subject.

Reading order:
    heads           the forms in which models hand over queries and keys
    probabilities   softmax(q k^T) at the subjects' tokens
    recorded_maps   the same softmax as a function that autograd differentiates
    log_sums        the same softmax without the keys that nobody asks for
    output_space    the likeness of words and places in what the attention puts out
    looked_for      the same for words that are not in the prompt
    aggregate       maps of several layers and conditionings put together into one
    refine          maps sharpened by the model's own self-attention
    place_maps      the self-attention of all layers as one matrix: what every place of a picture attends to
    rearranged      attention that another program rearranged: which keys hold the text, how rows were mixed
"""
