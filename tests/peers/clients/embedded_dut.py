"""A test of somebody's firmware, written for pytest-embedded: run by `pytest --embedded-services esp,serial`."""


def test_the_board_is_found_erased_and_reset(serial, dut):
    assert serial.target == "esp32c3"
    serial.erase_flash()
    serial.hard_reset()
    dut.expect("boot:", timeout=10)
