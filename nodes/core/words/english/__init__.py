"""Which words of an English prompt are its subjects and which its scene.

Reading order, which is the order of work:
    foreign_syntax    take out the prompt syntax of other programs
    pipeline          tag the text: an installed spaCy model, or a blank pipeline with the rules of `tagger`
    word_lists        words by part of speech, and by what they do to the phrases around them
    word_forms        which parts of speech a word can be
    tagger            which of them it is here
    noun_phrases      the noun phrases, each with its head and preposition
    noun_kinds        what a noun means: an animal, a place, a style …
    phrase_kinds      what a phrase stands for: a thing, the scene, or nothing that could be seen
    content_phrases   without "a photo of" and "no people"
    main_subject      what the prompt is a picture of
    roles             all of this put together: `find_roles`
"""
