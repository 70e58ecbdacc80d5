"""The taxonomy's files."""

import pytest

from vfe.data.ego4d import taxonomy
from vfe.errors import UserError

NOUNS = """label,group
ambulance,['ambulance']
"adjust_(regulate,_increase/reduce,_change)","['adjust', 'change', 'ambulance']"
put_(place,_leave),['put', 'leave']
"""


def test_a_line_is_a_class_and_its_words_are_of_it(make):
  file = make({"narration_noun_taxonomy.csv": NOUNS}) / "narration_noun_taxonomy.csv"
  found = taxonomy.read_taxonomy(file)
  long = "adjust_(regulate,_increase/reduce,_change)"
  assert found.labels == ("ambulance", long, "put_(place,_leave)")
  assert found.classes == {"ambulance": 0, "adjust": 1, "change": 1, "put": 2, "leave": 2}
  assert taxonomy.class_count(file.parent, "nouns", 582) == 3
  assert taxonomy.class_count(file.parent, "verbs", 118) == 118


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("label,group\ncup,cup\n", r"line 2: 'cup,cup' is no label with its group; download"),
    ("label,group\ncup,['cup']\n,['x']\n", r"line 3: \",\['x'\]\" is no label"),
    ("label,group\ncup,[1]\n", r"line 2: 'cup,\[1\]' is no"),
    ("label,group\ncup,['a\n", "line 2: "),
    ("label,group\n", "no classes"),
    ("noun,group\n", "line 1: columns 'noun,group' are not label,group"),
    ("", "line 1: columns '' are not"),
  ],
)
def test_what_is_no_class_is_refused_with_its_line(make, text, message):
  file = make({"a.csv": text}) / "a.csv"
  with pytest.raises(UserError, match=message):
    taxonomy.read_taxonomy(file)
