"""What becomes of images of other shapes."""

import pytest
import torch

from edgewright.task.sizes import Frame, central, fit_answers, frame_of, to_size


@pytest.mark.parametrize(
    ("found", "asked", "frame"),
    [
        ([(40, 50)] * 9, None, Frame((40, 50), "whole")),
        ([(50, 40)] * 9, None, Frame((50, 40), "whole")),
        ([(480, 640), (240, 320), (245, 320)] * 5, None, Frame((224, 299), "whole")),
        ([(24, 25)] * 9, None, Frame((24, 24), "crop")),  # as good as square
        ([(30, 60)] * 5 + [(60, 30)] * 4, None, Frame((30, 30), "crop")),  # no aspect in common
        ([(30, 60)] * 39 + [(60, 30)], None, Frame((30, 60), "crop")),  # all but one have: that one is cut
        ([(30, 60)] * 9, 16, Frame((16, 16), "crop")),
        ([(30, 60)] * 9, (15, 30), Frame((15, 30), "whole")),
        ([(30, 61)] * 9, (15, 30), Frame((15, 30), "whole")),
        ([(30, 60)] * 9, (20, 20), Frame((20, 20), "crop")),
        ([(5, 9)] * 9, None, Frame((8, 14), "whole")),
        ([(1000, 100)] * 9, None, Frame((512, 51), "whole")),
        ([(4000, 10)] * 9, None, Frame((512, 8), "crop")),
        ([(300, 304)] * 9, None, Frame((224, 224), "crop")),
        ([(45, 45)] * 9, None, Frame((48, 48), "crop")),
    ],
)
def test_frames_by_hand(found, asked, frame):
    assert frame_of(found, asked) == frame


def test_a_network_that_is_there_decides_the_shape():
    assert frame_of([(30, 60)] * 9, None, like=(64, 64)) == Frame((30, 30), "crop")
    assert frame_of([(30, 60)] * 9, None, like=(32, 64)) == Frame((30, 60), "whole")


def test_what_is_cut_off_is_told(capsys):
    frame_of([(30, 60)] * 5 + [(60, 30)] * 4, None)
    assert "the central part is kept, at 30 px; 50 % is cut off in the median" in capsys.readouterr().err
    frame_of([(40, 50)] * 9, None)
    assert capsys.readouterr().err == "the images are oblong; they are kept whole, at 40 x 50 px\n"
    frame_of([(32, 32)] * 9, None)
    assert capsys.readouterr().err == ""


def test_maps_are_brought_into_range_and_it_is_told(capsys):
    assert to_size((49, 10)) == (49, 10)
    assert capsys.readouterr().err == ""
    assert to_size((1000, 10)) == (512, 8)
    assert to_size((300, 448)) == (224, 335)
    assert capsys.readouterr().err.count("they are kept at") == 2
    assert to_size((5, 6)) == (8, 10)


def test_the_central_part_has_the_shape_and_is_in_the_middle():
    assert central((16, 48), (8, 8)) == (16, 0, 16, 16)
    assert central((48, 16), (10, 20)) == (0, 20, 16, 8)
    x = torch.zeros(16, 48)
    box = central((16, 48), (16, 24))
    x[box.top : box.top + box.height, box.left : box.left + box.width] = 1
    assert torch.equal(x, x.flip(0))
    assert torch.equal(x, x.flip(1))
    assert x.sum() == 16 * 24


def test_answers_are_picked_not_mixed():
    answers = torch.tensor([[[0, 1, 2, 255], [3, 3, 0, 0]]])
    assert fit_answers(answers, (2, 4)) is answers
    assert fit_answers(answers, (4, 8))[0, ::2, ::2].equal(answers[0])
    assert fit_answers(answers, (1, 2)).tolist() == [[[3, 0]]]
    assert {*fit_answers(answers, (7, 5)).unique().tolist()} <= {0, 1, 2, 3, 255}
