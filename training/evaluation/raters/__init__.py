"""Side-by-side judgement of two sets of pictures by people: the page, and the count of answers.

Source: Muse, section 3.2.1 and figure 9.
"""
