/* C++ functions whose names need their scope, and a lambda, which is not inlined into the function around it. */
namespace sensors {
template <typename Value> struct Bus {
    Value base;
    __attribute__((noinline)) int read(int address) { return *(volatile int *)(address + base); }
};
namespace {
__attribute__((noinline)) int help(int address) { return *(volatile int *)address; }
}
}

struct App {
    __attribute__((noinline)) void loop();
};

void App::loop()
{
    sensors::Bus<int> bus{3};
    bus.read(4);
    sensors::help(5);
    auto callback = [](int address) __attribute__((noinline)) { return *(volatile int *)address; };
    callback(6);
}

extern "C" void start()
{
    App app;
    app.loop();
}
