/* The chip header of the host build. */
#define CPU_HZ 1000000000
#define IMAGE_CHIP_ID 0xFFFE
#define CAN_ENCRYPT 1
#define BUILD_ID {'h', 'o', 's', 't', 0, 0, 0, 0}
#define CAN_LZMA 1
#define HAS_SECURITY_INFO 0
#define HAS_BRANCH_FILTER 1
#define LZMA_LC 2
#define LZMA_LP 1
#define LZMA_PB 1
