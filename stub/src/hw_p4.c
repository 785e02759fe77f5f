/* The core voltage of the ESP32-P4 for a higher clock: the DC-DC converter takes over from the linear regulator. The steps are those
   of Espressif's esp-stub-lib (target/esp32p4/src/clock.c); undone in reverse order, the regulator is back before the converter ends. */
#include "hw.h"
#ifdef CORE_REGULATOR

#define REGULATOR_ON (1u << 18)
#define CONVERTER_SELECTED (1u << 14)
#define BIAS (31u << 27)
#define FEEDBACK_OFF (1u << 11)
#define LP_FEEDBACK (0xFFu << 21)
#define DEFAULT_CORE_BIAS 24u
#define DEFAULT_LP_BIAS 29u
#define MOST_BIAS 31u
#define CONVERTER_VOLTAGE 27u
#define FROM_REVISION_3_1 (1u << 3 | 1u << 10 | 1u << 11) /* steps, by their numbers */

enum { CORE_BIAS_STEP = 1, LP_BIAS_STEP = 2 };
static struct step steps[] = {
  {CORE_REGULATOR, REGULATOR_ON, REGULATOR_ON},
  {CORE_REGULATOR, BIAS, DEFAULT_CORE_BIAS << 27},
  {LP_REGULATOR, BIAS, DEFAULT_LP_BIAS << 27},
  {DCDC_CONTROL, FEEDBACK_OFF, FEEDBACK_OFF},
  {DCDC_CONTROL, 1u << 7, 0},         /* done is not forced */
  {DCDC_CONTROL, 1, 1},               /* on */
  {DCDC_SWITCH, 1, 0},
  {DCDC_SWITCH, 2, 0},
  {CORE_BIAS, 31u << 18, CONVERTER_VOLTAGE << 18},
  {CORE_REGULATOR | WAIT, CONVERTER_SELECTED, CONVERTER_SELECTED},
  {LP_CONTROL, LP_FEEDBACK, 0xEFu << 21},
  {DCDC_CONTROL | WAIT, FEEDBACK_OFF, 0},
  {CORE_REGULATOR | WAIT, REGULATOR_ON, 0},
};

/* The chip's own values, if it has any: eFuse blocks of the versions 0.0, 0.1 and 1.0 have none. */
static void read_fuses(u32 block_version) {
  u32 fuses = REGISTER(VOLTAGE_FUSES), core = fuses >> 16 & 15, lp = fuses >> 20 & 15;
  if (block_version < 2 || block_version == 8) return;
  if (core) steps[CORE_BIAS_STEP].value = (core + 16) << 27;
  if (lp) steps[LP_BIAS_STEP].value = (lp + 20 < MOST_BIAS ? lp + 20 : MOST_BIAS) << 27;
}

void raise_voltage(void) {
  u32 fuses = REGISTER(REVISION_FUSES), minor = fuses & 15, major = (fuses >> 4 & 3) | (fuses >> 21 & 4);
  u32 left_out = major * 16 + minor > 0x30 ? 0 : FROM_REVISION_3_1;
  read_fuses(fuses >> 8 & 31);
  for (u32 i = 0; i < sizeof steps / sizeof *steps; i++)
    if (!(left_out >> i & 1)) take_step(&steps[i]);
}
#endif
