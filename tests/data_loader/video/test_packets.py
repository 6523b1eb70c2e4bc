"""What packets tell without decoding."""

from data_loader.video.packets import Packets, is_vp8_reference, is_vp9_reference


def test_ranges_of_packets():
    # decoded: I0 P3 B1 B2, then an open group: I6 B4 B5 P9 B7 B8, then a closed one: I10 P11
    times = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 10, 11]
    keys = [t in (0, 6, 10) for t in times]
    packets = Packets("mov,mp4", times, keys, [False] * 12)
    assert packets.shown() == list(range(12))
    assert packets.start_clean() and packets.are_timed()
    assert packets.ranges([1]) == [(0, 2)]
    assert packets.ranges([4]) == [(0, 5)]  # shown before the key frame it follows
    assert packets.ranges([7]) == [(4, 8)]
    assert packets.ranges([1, 11, 10]) == [(0, 2), (10, 11)]
    assert packets.ranges([4, 9]) == [(0, 7)]
    cut = Packets("mov,mp4", times, keys, [t < 5 for t in times])
    assert cut.count == 7 and cut.shown() == list(range(5, 12))
    assert not Packets("mov,mp4", [0, 0], [True, True], [False] * 2).are_timed()
    assert not Packets("mov,mp4", [0, None], [True, True], [False] * 2).are_timed()
    assert not Packets("avi", [0, 1], [True, True], [False] * 2).are_timed()
    assert not Packets("mov,mp4", [1, 0], [True, False], [False] * 2).start_clean()
    assert not Packets("mov,mp4", [0, 1], [False, True], [False] * 2).start_clean()


def test_pictures_for_reference_alone_are_known_by_their_first_bits():
    assert [is_vp8_reference(memoryview(bytes([b]))) for b in (0x10, 0x11, 0x00, 0x31, 0x21)] == [
        False,
        False,
        True,
        False,
        True,
    ]
    # marker 10, profile 0: then show_existing_frame, frame_type, show_frame, error_resilient_mode
    shown, hidden, existing = 0b10000110, 0b10000100, 0b10001000
    assert [is_vp9_reference(memoryview(bytes([b, 0]))) for b in (shown, hidden, existing)] == [
        False,
        True,
        False,
    ]
    assert not is_vp9_reference(memoryview(bytes([hidden, 0xC1])))  # one of several in a superframe is shown
    profile_3 = 0b10110000  # has a reserved bit after the profile
    assert [is_vp9_reference(memoryview(bytes([profile_3 | b, 0]))) for b in (0b001, 0b000, 0b100)] == [
        False,
        True,
        False,
    ]
