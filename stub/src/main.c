/* Where the start-up code goes. */
#include "stub.h"

void stub_main(void) {
  hw_start();
  serve();
}
