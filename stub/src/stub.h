/* Interfaces between the parts of the stub. The sources are the same for all chips; a chip's numbers are in its generated header. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;

#include "chip.h"

#define IN_REGISTER(value) __asm__("" : "+r"(value)) /* the compiler does not compute it anew in each round of a loop */

#define HEADER 8u
#define SECTOR 4096u
#define BLOCK 65536u
#define PAYLOAD 2048u                 /* of WRITE_DATA */
#define WINDOW (13u * PAYLOAD)        /* of a write: with the current frame and a spare one it fits the ring */
#define WINDOW_MASK 32767u            /* of the last unpacked bytes, which matches refer to */
#define MASK_BITS 255u                /* of a position: the mask */
#define WRITE_STEP 256u               /* unpacked bytes that are handed over at once */
#define TURN 4u                       /* unpacked bytes between two looks at the flash */
#define RX_TURN 16u                   /* ditto at the receiver */
#define BURST 64u                     /* what the SPI controller holds */
#define READ_PACKET 4096u
#define READ_WINDOW 65536u
#define BATCH_BYTES 512u
#define FIRST_BATCH 128u              /* bytes of the batch that is uploaded with the stub */
#define ANSWER_BYTES 64u              /* of a small command */
#define VENDOR_BLOCK 16384u

/* Set by the host before the upload. `spi_clock`: value of the register of that name; 0: as the ROM has set it.
   `batch`: the body of a BATCH that is answered right after the hello. */
extern struct options { u32 flags, baud, spi_clock, batch_size; u8 batch[FIRST_BATCH] __attribute__((aligned(4))); } options;

/* --- hw_*.c (on the PC: host/host.c): the only files that access registers --- */
u32 hw_rx_take(u8 *bytes, u32 most);  /* out of the receive FIFO; returns how many; 0: it is empty */
u32 hw_tx_room(void);                 /* room in the transmit FIFO, in bytes */
void hw_tx_byte(u8 byte);
void hw_tx_flush(void);               /* a frame is complete: send the incomplete packet */
void hw_tx_drain(void);               /* wait until the last bit has left */
void hw_set_baud(u32 now, u32 wanted);
u32 uart_divider(void);               /* in sixteenths */
void uart_set_divider(u32 sixteenths);
void hw_start(void);                  /* watchdogs off, full clock, flash pins */
void hw_leave(void);                  /* undo what hw_start did, except for the watchdogs */
u32 hw_code_crc(void);               /* of code and constants as they lie in memory: the ROM's upload proves little */
void hw_reset(void);
u32 hw_read(u32 address);
void hw_write(u32 address, u32 value);
void hw_delay_us(u32 microseconds);
void hw_jump(u32 address);
u16 hw_attach(u32 pins);
u16 hw_write_encrypted(u32 address, const u32 *data, u32 size);

struct spi {                          /* a transaction; lengths in bits, bits, bytes, bytes */
  u8 opcode, address_bits, dummy, out, in;
  u32 address;
  u32 words[16];                      /* data received */
};
u32 hw_spi_load(const u32 *words, u32 size); /* the data of the next transaction that sends any; returns all words ANDed */
void hw_spi_start(const struct spi *transaction); /* when the last one is finished */
void hw_spi_finish(struct spi *transaction);
u32 hw_spi_take(u32 *words, u32 size); /* instead of hw_spi_finish: `size` bytes received, ones behind them; returns all words ANDed */
void hw_spi_again_at(const struct spi *transaction); /* the last one once more, at its new address; nothing else has changed */
u8 hw_flash_status(void);             /* this and the next one change neither the data nor what hw_spi_again_at repeats */
void hw_write_enable(void);

/* --- frames.c: SLIP, and a ring of received frames --- */
struct frame { u32 start, size; };
void rx_poll(void);                   /* call from every wait and every long loop */
#ifdef FIRST_STAGE
enum { unsealed = 1 };
static inline void trial_begin(u32 ms) { (void)ms; }
#else
extern u8 unsealed;                   /* the host is a vendor's tool: no CRCs are sent or expected */
void trial_begin(u32 ms);             /* before the rate changes; 0: the new rate stays */
#endif
enum trust { DAMAGED, UNSEALED, SEALED };
u32 frame_trust(const struct frame *frame);         /* how far it is known to be an undamaged request */
int request_waits(void);              /* drops other frames */
int abort_waits(void);                /* the running command should end */
int frame_take(struct frame *frame);  /* the oldest frame; it stays in the ring until it is released. 0: none; a trial's time goes on */
void frame_release(void);
u8 frame_byte(const struct frame *frame, u32 at);
u32 frame_word(const struct frame *frame, u32 at);
void frame_copy(const struct frame *frame, u32 at, void *to, u32 size);
u32 frame_span(const struct frame *frame, u32 at, u32 size, const u8 **data); /* contiguous bytes from there */
u8 vendor_checksum(const struct frame *frame, u32 size); /* of the data in one of the vendor's data frames */
void frame_unread(void);              /* undo the last frame_take */
void slip_begin(void);
void slip_put(const void *data, u32 size);
void slip_end(void);                  /* with the CRC of the frame */
void tx_queue(int on);                /* on: from now on, frames wait in the window and are sent while the stub works */

/* --- commands.c --- */
struct answer { u32 value, size; u16 status; u8 data[ANSWER_BYTES] __attribute__((aligned(4))); };
void begin_reply(u8 op, u32 value, u32 size);       /* `size` bytes of data follow */
void end_reply(u16 status);
void send_reply(u8 op, u32 value, const void *data, u32 size, u16 status);
void send_status(u8 op, u16 status); /* a reply with a status only */
void serve(void);

/* --- write.c, read.c, hash.c --- */
struct md5 { u32 state[4], size; u8 block[64] __attribute__((aligned(4))); };
void write_open(const u32 *args);
void write_begin_vendor(const u32 *args, u32 size, u8 op);
void write_data_late(const struct frame *frame, u8 op);
u16 write_end_vendor(void);
void write_forget(void);
void write_forget_hash(void);         /* the flash may change */
int write_more(const u8 **data, u32 *size);         /* for unpack: the next piece of the stream; 0: the end */
int write_ready(u32 total);           /* for unpack: `total` bytes are unpacked; 0: stop */
void write_pump(void);                /* call often, as rx_poll: programs unpacked data when the flash is ready */
u32 write_hashed(u32 address, u32 size, struct md5 *md5); /* bytes of this range that were read back before; their MD5 */
void read_open(const struct frame *frame);
void read_vendor(const u32 *args);
void hash_pieces(const u32 *args);
enum { KIND_MD5, KIND_BLANK };
int scan_flash(struct md5 *md5, u32 address, u32 size, u32 *keep);
int hash_flash(struct md5 *md5, u32 address, u32 size);
int hash_piece(u32 address, u32 size, u32 kind, u8 *result, int to_the_end);

/* --- unpack.c, inflate.c, lzma.c, branches.c --- */
extern u8 window[WINDOW_MASK + 1] __attribute__((aligned(4)));
extern u8 stream_mask;               /* every byte of the stream is XORed with it, so that the host can avoid SLIP escapes */
extern struct unpack { u32 written; u8 ended, stopped; } unpack; /* the stream has ended; the flash side has stopped */
extern const u8 *unpack_input;        /* the next bytes of the stream, as received */
extern u32 unpack_left;               /* how many of them are there */
void unpack_start(int check_adler);
u32 unpack_byte(void);                /* the next of the stream; 0 once it has ended */
void unpack_put(u32 byte);
int unpack_repeat(u32 distance, u32 size);          /* 0: nothing is there */
void unpack_flush(void);
u32 unpack_adler(void);
u16 inflate_stream(void);             /* 0, or the status */
u16 lzma_stream(void);
void branches_restore(u8 *code, u32 position, u32 size);

/* --- flash.c --- */
void flash_wait(void);
int flash_busy(void);
void flash_forget(void);              /* the registers of the SPI controller have changed, or other data comes */
void flash_read(u32 address, u32 *data, u32 size);  /* at most 64 bytes */
void flash_read_start(u32 address, u32 size);
u32 flash_read_finish(u32 *data);     /* completes flash_read_start; returns all words ANDed, ones behind the last byte */
void spi_run(struct spi *transaction);
void flash_load(u32 address, const u32 *data, u32 size); /* for the next flash_start_program; while the flash is busy */
void flash_start_program(u32 address, const u32 *data, u32 size); /* within a unit of 64 bytes, when not busy */
void flash_start_erase(u32 address, u32 size);      /* a sector or a 64 KiB block; does not wait for the end */
int flash_in_range(u32 address, u32 size);
void flash_erase_range(u32 address, u32 size);
void flash_erase_all(void);
u32 erase_next(u32 address, u32 end);               /* start erasing the unit at `address` if necessary; returns the next unit */
extern u32 flash_size;                /* as SPI_SET_PARAMS has set it; 0: unknown */

/* --- md5.c, crc.c, memory.c --- */
void md5_start(struct md5 *md5);
void md5_add(struct md5 *md5, const u8 *data, u32 size);
void md5_add_block(struct md5 *md5, const u32 words[16]);
void md5_end(struct md5 *md5, u8 digest[16]);
u32 crc32_add(u32 crc, const u8 *data, u32 size);   /* start with 0 */
void copy(void *to, const void *from, u32 size);

/* status codes: the vendor's, see protocol.toml [errors] stub */
enum {
  OK = 0x0000,
  GO_BACK = 0x0001,
  BAD_LENGTH = 0xC000,
  BAD_CHECKSUM = 0xC100,
  BAD_BLOCK = 0xC200,
  UNKNOWN_COMMAND = 0xC300,
  SPI_FAILED = 0xC400,
  NOT_OPEN = 0xC600,
  INFLATE_FAILED = 0xC700,
  TOO_LITTLE = 0xC800,
  TOO_MUCH = 0xC900,
  NOT_IMPLEMENTED = 0xFF00,
};

enum {
  FLASH_BEGIN = 0x02, FLASH_DATA, FLASH_END, MEM_BEGIN, MEM_END, MEM_DATA, SYNC, WRITE_REG, READ_REG, SPI_SET_PARAMS,
  SPI_ATTACH = 0x0D, CHANGE_BAUDRATE = 0x0F, FLASH_DEFL_BEGIN, FLASH_DEFL_DATA, FLASH_DEFL_END, SPI_FLASH_MD5,
  GET_SECURITY_INFO,
  ERASE_FLASH = 0xD0, ERASE_REGION, READ_FLASH, RUN_USER_CODE,
  CAPABILITIES = 0xF0, WRITE_OPEN, WRITE_DATA, READ_OPEN, READ_ACK, HASH, SPI, BATCH, ABORT, RESET,
};

/* Whether the command carries data, which has its own checksum in the vendor's protocol. */
static inline int is_data(u8 op) { return op == FLASH_DATA || op == FLASH_DEFL_DATA || op == MEM_DATA; }
