// PID 1 of the guest: loads the display drivers, draws what it is told to and says each second that it lives.
// README.md has the commands and the picture. Static, and alone in the initramfs with the kernel's modules.
#define _GNU_SOURCE
#include <dirent.h>
#include <drm/drm.h>
#include <drm/drm_mode.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MOST_DISPLAYS 8
#define PCI "/sys/bus/pci/devices"

struct display {
    char address[32];
    bool drm;  // bochs, whose modes can be set; otherwise a frame buffer device of one mode
    int fd;
    uint32_t crtc, connector, fb, handle;
    uint32_t width, height, stride;
    size_t size;
    uint8_t *memory;
};

static struct display displays[MOST_DISPLAYS];
static unsigned display_count;
static int line = -1;
// Iterations of the busy loop so far, counted in a process of its own.
static _Atomic uint64_t *loops;
static pid_t looping;

// One write for each line, so that those of two processes do not mix.
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof text - 2)
        length = sizeof text - 2;
    text[length++] = '\n';
    if (write(line, text, length) != length)
        _exit(1);
}

static uint64_t milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * UINT64_C(1000) + now.tv_nsec / 1000000;
}

static void open_line(void) {
    struct termios settings;
    line = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (line < 0 || tcgetattr(line, &settings) < 0)
        _exit(1);
    cfmakeraw(&settings);
    // Lines from outside, no echo.
    settings.c_lflag |= ICANON;
    settings.c_cflag |= CLOCAL | CREAD;
    cfsetspeed(&settings, B115200);
    tcsetattr(line, TCSANOW, &settings);
}

// Loads what /modules/order lists: a module in each row, and its parameters.
static void load_modules(void) {
    char path[300], row[256];
    FILE *list = fopen("/modules/order", "re");
    while (list && fgets(row, sizeof row, list)) {
        row[strcspn(row, "\n")] = 0;
        char *parameters = strchr(row, ' ');
        if (parameters)
            *parameters++ = 0;
        snprintf(path, sizeof path, "/modules/%s", row);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (syscall(SYS_finit_module, fd, parameters ? parameters : "", 0) < 0 && errno != EEXIST)
            say("error module %s: %s", row, strerror(errno));
        close(fd);
    }
    if (list)
        fclose(list);
}

static unsigned read_id(const char *address, const char *what) {
    char path[300];
    unsigned id = 0;
    snprintf(path, sizeof path, PCI "/%s/%s", address, what);
    FILE *file = fopen(path, "re");
    if (file) {
        if (fscanf(file, "%x", &id) != 1)
            id = 0;
        fclose(file);
    }
    return id;
}

// The number in the first name in a folder of the device that is PREFIX and a number: card0, fb1.
static int node_of(const char *address, const char *folder, const char *prefix) {
    char path[300];
    int number = -1;
    snprintf(path, sizeof path, PCI "/%s/%s", address, folder);
    DIR *names = opendir(path);
    struct dirent *entry;
    while (names && number < 0 && (entry = readdir(names)))
        if (!strncmp(entry->d_name, prefix, strlen(prefix)))
            number = atoi(entry->d_name + strlen(prefix));
    if (names)
        closedir(names);
    return number;
}

static bool open_card(struct display *display) {
    char path[64];
    uint32_t crtcs[8], connectors[8];
    struct drm_mode_card_res resources = {
        .crtc_id_ptr = (uintptr_t)crtcs, .connector_id_ptr = (uintptr_t)connectors, .count_crtcs = 8, .count_connectors = 8};
    snprintf(path, sizeof path, "/dev/dri/card%d", node_of(display->address, "drm", "card"));
    display->fd = open(path, O_RDWR | O_CLOEXEC);
    if (display->fd < 0 || ioctl(display->fd, DRM_IOCTL_MODE_GETRESOURCES, &resources) < 0)
        return false;
    display->crtc = crtcs[0];
    display->connector = connectors[0];
    return resources.count_crtcs && resources.count_connectors;
}

static bool open_frame_buffer(struct display *display) {
    char path[64];
    struct fb_var_screeninfo mode;
    struct fb_fix_screeninfo memory;
    snprintf(path, sizeof path, "/dev/fb%d", node_of(display->address, "graphics", "fb"));
    display->fd = open(path, O_RDWR | O_CLOEXEC);
    if (display->fd < 0 || ioctl(display->fd, FBIOGET_VSCREENINFO, &mode) < 0 ||
        ioctl(display->fd, FBIOGET_FSCREENINFO, &memory) < 0)
        return false;
    display->width = mode.xres;
    display->height = mode.yres;
    display->stride = memory.line_length;
    display->size = (size_t)display->stride * display->height;
    display->memory = mmap(NULL, display->size, PROT_READ | PROT_WRITE, MAP_SHARED, display->fd, 0);
    return display->memory != MAP_FAILED;
}

// Displays are numbered in the order of their PCI addresses.
static void find_displays(void) {
    // The devices came after the kernel had looked for some: those of the VM that a snapshot was restored in.
    int rescan = open("/sys/bus/pci/rescan", O_WRONLY | O_CLOEXEC);
    if (write(rescan, "1", 1) != 1)
        say("error rescan: %s", strerror(errno));
    close(rescan);
    struct dirent **entries;
    int count = scandir(PCI, &entries, NULL, alphasort);
    for (int number = 0; number < count; number++) {
        const char *address = entries[number]->d_name;
        unsigned id = read_id(address, "vendor") << 16 | read_id(address, "device");
        struct display *display = &displays[display_count];
        if (display_count == MOST_DISPLAYS || (id != 0x12341111 && id != 0x1b36000f))
            continue;
        snprintf(display->address, sizeof display->address, "%.31s", address);
        display->drm = id == 0x12341111;
        if (!(display->drm ? open_card(display) : open_frame_buffer(display)))
            say("error display %u (%s): %s", display_count, address, strerror(errno));
        display_count++;
    }
}

static const char *set_mode(struct display *display, unsigned width, unsigned height) {
    if (!display->drm)
        return "this display has one mode";
    struct drm_mode_create_dumb create = {.width = width, .height = height, .bpp = 32};
    if (ioctl(display->fd, DRM_IOCTL_MODE_CREATE_DUMB, &create) < 0)
        return "CREATE_DUMB";
    struct drm_mode_fb_cmd fb = {
        .width = width, .height = height, .pitch = create.pitch, .bpp = 32, .depth = 24, .handle = create.handle};
    struct drm_mode_map_dumb map = {.handle = create.handle};
    if (ioctl(display->fd, DRM_IOCTL_MODE_ADDFB, &fb) < 0)
        return "ADDFB";
    if (ioctl(display->fd, DRM_IOCTL_MODE_MAP_DUMB, &map) < 0)
        return "MAP_DUMB";
    // Nothing here has a signal to keep in time; these are numbers that the kernel takes for a mode.
    struct drm_mode_crtc crtc = {.crtc_id = display->crtc,
                                 .fb_id = fb.fb_id,
                                 .set_connectors_ptr = (uintptr_t)&display->connector,
                                 .count_connectors = 1,
                                 .mode_valid = 1,
                                 .mode = {.clock = (width + 160) * (height + 60) / 1000 * 60,
                                          .hdisplay = width,
                                          .hsync_start = width + 40,
                                          .hsync_end = width + 80,
                                          .htotal = width + 160,
                                          .vdisplay = height,
                                          .vsync_start = height + 10,
                                          .vsync_end = height + 20,
                                          .vtotal = height + 60,
                                          .vrefresh = 60}};
    if (ioctl(display->fd, DRM_IOCTL_MODE_SETCRTC, &crtc) < 0)
        return "SETCRTC";
    void *memory = mmap(NULL, create.size, PROT_READ | PROT_WRITE, MAP_SHARED, display->fd, map.offset);
    if (memory == MAP_FAILED)
        return "mmap";
    if (display->memory) {
        munmap(display->memory, display->size);
        ioctl(display->fd, DRM_IOCTL_MODE_RMFB, &display->fb);
        struct drm_mode_destroy_dumb destroy = {.handle = display->handle};
        ioctl(display->fd, DRM_IOCTL_MODE_DESTROY_DUMB, &destroy);
    }
    display->fb = fb.fb_id;
    display->handle = create.handle;
    display->width = width;
    display->height = height;
    display->stride = create.pitch;
    display->size = create.size;
    display->memory = memory;
    return NULL;
}

// The pixel of number INDEX, row by row, as a little-endian word: B, G, R and a byte that is not shown.
static inline uint32_t pixel(uint32_t seed, uint32_t index) {
    uint32_t x = index + seed * 0x9e3779b9u;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

static const char *draw(struct display *display, uint32_t seed) {
    static uint32_t row[16384];
    uint32_t index = 0;
    if (!display->memory || display->width > 16384)
        return "no mode is set";
    for (uint32_t y = 0; y < display->height; y++) {
        for (uint32_t x = 0; x < display->width; x++)
            row[x] = pixel(seed, index++);
        memcpy(display->memory + (size_t)y * display->stride, row, display->width * 4);
    }
    return NULL;
}

static void beat_for_ever(void) {
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (unsigned number = 0;; number++) {
        say("beat %u %" PRIu64 " %" PRIu64, number, milliseconds(), atomic_load(loops));
        next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
}

static void loop_for_ever(void) {
    volatile uint32_t result = 0;
    uint32_t x = 1;
    for (;;) {
        for (unsigned step = 0; step < 1000; step++)
            x = pixel(x, step);
        result = x;
        atomic_fetch_add(loops, 1);
    }
    (void)result;
}

static pid_t start(void (*work)(void)) {
    pid_t process = fork();
    if (process == 0) {
        work();
        _exit(0);
    }
    return process;
}

static void stop_looping(void) {
    if (looping > 0) {
        kill(looping, SIGKILL);
        waitpid(looping, NULL, 0);
    }
    looping = 0;
}

static void obey(const char *command) {
    unsigned number, width, height;
    uint32_t seed;
    const char *failure = NULL;
    errno = 0;
    if (sscanf(command, "mode %u %ux%u", &number, &width, &height) == 3 && number < display_count)
        failure = set_mode(&displays[number], width, height);
    else if (sscanf(command, "picture %u %" SCNu32, &number, &seed) == 2 && number < display_count)
        failure = draw(&displays[number], seed);
    else if (!strcmp(command, "start")) {
        start(beat_for_ever);
        find_displays();
        say("ok start %u", display_count);
        return;
    } else if (!strcmp(command, "loop on")) {
        stop_looping();
        looping = start(loop_for_ever);
    } else if (!strcmp(command, "loop off"))
        stop_looping();
    else if (!strcmp(command, "count")) {
        say("ok count %" PRIu64 " %" PRIu64, milliseconds(), atomic_load(loops));
        return;
    } else if (!strcmp(command, "halt")) {
        say("ok halt");
        tcdrain(line);
        // QEMU is told to end when the guest reboots; that needs no ACPI.
        reboot(RB_AUTOBOOT);
    } else
        failure = "no such command, or display";
    if (failure)
        say("error %s: %s%s%s", command, failure, errno ? ": " : "", errno ? strerror(errno) : "");
    else
        say("ok %s", command);
}

int main(void) {
    char command[256];
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    open_line();
    loops = mmap(NULL, sizeof *loops, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    load_modules();
    say("booted");
    for (;;) {
        ssize_t length = read(line, command, sizeof command - 1);
        if (length <= 0)
            continue;
        command[length] = 0;
        command[strcspn(command, "\n")] = 0;
        obey(command);
    }
}
