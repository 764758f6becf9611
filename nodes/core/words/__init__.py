"""From a prompt to its subjects, and from their characters to the positions of their tokens.

Reading order:
    subjects      the result: a prompt, its subjects and scenes, their token positions
    prompt_text   the prompt without weights, parentheses and escapes
    english/      which words of it are subjects and which the scene
    chinese_japanese   the same for two languages without spaces between words (scripts: what characters those are)
    named_words   the words that the user names instead
    tokens        from characters of the prompt to token positions (token_offsets: the same inside one text;
                  context_rows: which rows of the encoded prompt hold them)
    prompt_words  all words of the prompt, and each with its tokens
    parsing       all of this put together: `parse`
    looked_for    words that maps are wanted of although they need not be in the prompt
    chips         the prompt's words as the browser shows them on the node
    alignment     which tokens of one prompt stand for which of another
"""
