/* Called by the start-up code. */
#include "stub.h"

void stub_main(void) {
  hw_start();
  serve();
}
