/* Functions that the compiler inlines into their callers, two levels deep. */
struct sensor {
  unsigned id;
  volatile unsigned *data;
};

static inline __attribute__((always_inline)) unsigned read_register(const struct sensor *sensor) {
  return *sensor->data; /* the load that fails */
}

static inline __attribute__((always_inline)) unsigned read_sensor(const struct sensor *sensor) {
  unsigned value = read_register(sensor);
  return value + sensor->id;
}
