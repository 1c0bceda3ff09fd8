/* Measures what C achieves on the same device with the same libusb, and what pread achieves on the kernel's block device.
 *
 *   ceiling read|write LIBUSB BUS DEVICE IN OUT device|ordinary SIZE
 *   ceiling pread NODE SIZE
 *
 * For each line on standard input, "WARMING FILE", it runs one command of SIZE bytes for each address in the file
 * (32-bit numbers in the machine's byte order), one after the other. The first WARMING of them are run once before,
 * without timing. It prints a JSON object: bytes, seconds, and the 50th and 99th percentile of a command's microseconds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 512, PAGE = 4096, CBW_LENGTH = 31, CSW_LENGTH = 13, TIMEOUT_MS = 30000, TRIES = 3, LINE = 4096 };
enum { READ_10 = 0x28, WRITE_10 = 0x2A, DATA_IN = 0x80 };

typedef struct libusb_context libusb_context;
typedef struct libusb_device libusb_device;
typedef struct libusb_device_handle libusb_device_handle;

static struct {
    int (*init)(libusb_context **);
    void (*exit)(libusb_context *);
    ssize_t (*get_device_list)(libusb_context *, libusb_device ***);
    void (*free_device_list)(libusb_device **, int);
    uint8_t (*get_bus_number)(libusb_device *);
    uint8_t (*get_device_address)(libusb_device *);
    int (*open)(libusb_device *, libusb_device_handle **);
    void (*close)(libusb_device_handle *);
    int (*set_auto_detach_kernel_driver)(libusb_device_handle *, int);
    int (*claim_interface)(libusb_device_handle *, int);
    int (*release_interface)(libusb_device_handle *, int);
    int (*bulk_transfer)(libusb_device_handle *, unsigned char, unsigned char *, int, int *, unsigned);
    unsigned char *(*dev_mem_alloc)(libusb_device_handle *, size_t);
    int (*dev_mem_free)(libusb_device_handle *, unsigned char *, size_t);
} usb;

static const struct {
    const char *name;
    void *slot;
} FUNCTIONS[] = {
    {"libusb_init", &usb.init},
    {"libusb_exit", &usb.exit},
    {"libusb_get_device_list", &usb.get_device_list},
    {"libusb_free_device_list", &usb.free_device_list},
    {"libusb_get_bus_number", &usb.get_bus_number},
    {"libusb_get_device_address", &usb.get_device_address},
    {"libusb_open", &usb.open},
    {"libusb_close", &usb.close},
    {"libusb_set_auto_detach_kernel_driver", &usb.set_auto_detach_kernel_driver},
    {"libusb_claim_interface", &usb.claim_interface},
    {"libusb_release_interface", &usb.release_interface},
    {"libusb_bulk_transfer", &usb.bulk_transfer},
    {"libusb_dev_mem_alloc", &usb.dev_mem_alloc},
    {"libusb_dev_mem_free", &usb.dev_mem_free},
};

struct stick {
    libusb_device_handle *handle;
    unsigned char in, out, *cbw, *csw, *data;
    uint32_t tag, size;
    int opcode;
};

struct file {
    int descriptor;
    void *data;
    uint32_t size;
};

struct list {
    uint32_t *lbas;
    size_t length;
};

static void fail(const char *what, int code) {
    fprintf(stderr, "ceiling: %s: %d\n", what, code);
    exit(1);
}

static double microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static struct list read_list(const char *path) {
    struct stat status;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &status) < 0)
        fail(path, errno);
    struct list list = {malloc(status.st_size), status.st_size / sizeof(uint32_t)};
    if (list.lbas == NULL || list.length == 0 || read(file, list.lbas, status.st_size) != status.st_size)
        fail(path, errno);
    close(file);
    return list;
}

/* Runs the commands of a list; prints the time of all and the percentiles of each. */
static void measure(void (*command)(void *, uint32_t), void *on, const struct list *list, uint32_t size, size_t warming) {
    double *each = calloc(list->length, sizeof *each);
    if (each == NULL)
        fail("calloc", ENOMEM);
    for (size_t i = 0; i < list->length && i < warming; i++)
        command(on, list->lbas[i]);
    double began = microseconds(), last = began;
    for (size_t i = 0; i < list->length; i++) {
        command(on, list->lbas[i]);
        double now = microseconds();
        each[i] = now - last;
        last = now;
    }
    qsort(each, list->length, sizeof *each, ascending);
    printf("{\"bytes\": %zu, \"seconds\": %.6f, \"p50\": %.1f, \"p99\": %.1f}\n", list->length * size,
           (last - began) / 1e6, each[(list->length - 1) / 2], each[(list->length - 1) * 99 / 100]);
    fflush(stdout);
    free(each);
}

static void serve(void (*command)(void *, uint32_t), void *on, uint32_t size) {
    char line[LINE], *path;
    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t warming = strtoul(line, &path, 10);
        line[strcspn(line, "\n")] = 0;
        struct list list = read_list(path + 1);
        measure(command, on, &list, size, warming);
        free(list.lbas);
    }
}

static void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    if (library == NULL)
        fail(dlerror(), 0);
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        void *function = dlsym(library, FUNCTIONS[i].name);
        if (function == NULL)
            fail(FUNCTIONS[i].name, 0);
        memcpy(FUNCTIONS[i].slot, &function, sizeof function);
    }
}

static libusb_device_handle *open_device(libusb_context *context, int bus, int number) {
    libusb_device **devices;
    libusb_device_handle *handle = NULL;
    ssize_t count = usb.get_device_list(context, &devices);
    for (ssize_t i = 0; i < count && handle == NULL; i++) {
        if (usb.get_bus_number(devices[i]) != bus || usb.get_device_address(devices[i]) != number)
            continue;
        int code = usb.open(devices[i], &handle);
        if (code < 0)
            fail("libusb_open", code);
    }
    if (count < 0 || handle == NULL)
        fail("no such device", (int)count);
    usb.free_device_list(devices, 1);
    return handle;
}

static unsigned char *allocate(const struct stick *stick, int device_memory, uint32_t size) {
    unsigned char *memory = device_memory ? usb.dev_mem_alloc(stick->handle, size) : aligned_alloc(PAGE, size);
    if (memory == NULL)
        fail(device_memory ? "libusb_dev_mem_alloc" : "aligned_alloc", (int)size);
    memset(memory, 0x5A, size);
    return memory;
}

static void transfer(const struct stick *stick, unsigned char endpoint, unsigned char *data, int length, const char *phase) {
    int count = 0, code = usb.bulk_transfer(stick->handle, endpoint, data, length, &count, TIMEOUT_MS);
    if (code < 0 || count != length)
        fail(phase, code < 0 ? code : count);
}

/* Transfers CBW, data and CSW; returns the status. */
static int exchange(struct stick *stick, uint32_t lba) {
    uint32_t blocks = stick->size / BLOCK;
    unsigned char *cdb = stick->cbw + 15;
    int reads = stick->opcode == READ_10;
    stick->tag++;
    memcpy(stick->cbw + 4, &stick->tag, 4);
    cdb[2] = lba >> 24, cdb[3] = lba >> 16, cdb[4] = lba >> 8, cdb[5] = lba;
    cdb[7] = blocks >> 8, cdb[8] = blocks;
    transfer(stick, stick->out, stick->cbw, CBW_LENGTH, "CBW");
    transfer(stick, reads ? stick->in : stick->out, stick->data, (int)stick->size, "data");
    transfer(stick, stick->in, stick->csw, CSW_LENGTH, "CSW");
    if (memcmp(stick->csw, "USBS", 4) != 0 || memcmp(stick->csw + 4, &stick->tag, 4) != 0)
        fail("CSW with a wrong signature or tag", stick->csw[12]);
    return stick->csw[12];
}

static void command(void *on, uint32_t lba) {
    int status = exchange(on, lba);
    if (status != 0)
        fail("CSW status", status);
}

static void prepare_cbw(struct stick *stick) {
    memset(stick->cbw, 0, CBW_LENGTH);
    memcpy(stick->cbw, "USBC", 4);
    memcpy(stick->cbw + 8, &stick->size, 4);
    stick->cbw[12] = stick->opcode == READ_10 ? DATA_IN : 0;
    stick->cbw[14] = 10;
    stick->cbw[15] = stick->opcode;
}

static int on_usb(char **words) {
    int device_memory = strcmp(words[7], "device") == 0;
    uint32_t size = (uint32_t)strtoul(words[8], NULL, 0);
    libusb_context *context;
    int opcode = strcmp(words[1], "write") == 0 ? WRITE_10 : READ_10;
    struct stick stick = {.size = size};
    load(words[2]);
    int code = usb.init(&context);
    if (code < 0)
        fail("libusb_init", code);
    stick.handle = open_device(context, atoi(words[3]), atoi(words[4]));
    stick.in = strtoul(words[5], NULL, 0);
    stick.out = strtoul(words[6], NULL, 0);
    usb.set_auto_detach_kernel_driver(stick.handle, 1);
    code = usb.claim_interface(stick.handle, 0);
    if (code < 0)
        fail("libusb_claim_interface", code);
    unsigned char *wrappers = allocate(&stick, device_memory, PAGE);
    stick.cbw = wrappers;
    stick.csw = wrappers + 1024;
    stick.data = allocate(&stick, device_memory, size);
    stick.opcode = READ_10; /* takes a pending unit attention */
    prepare_cbw(&stick);
    for (int i = 0; i < TRIES && exchange(&stick, 0) != 0; i++)
        ;
    stick.opcode = opcode;
    prepare_cbw(&stick);
    serve(command, &stick, size);
    if (device_memory) {
        usb.dev_mem_free(stick.handle, stick.data, size);
        usb.dev_mem_free(stick.handle, wrappers, PAGE);
    } else {
        free(stick.data);
        free(wrappers);
    }
    usb.release_interface(stick.handle, 0);
    usb.close(stick.handle);
    usb.exit(context);
    return 0;
}

static void read_block(void *on, uint32_t lba) {
    const struct file *file = on;
    ssize_t count = pread(file->descriptor, file->data, file->size, (off_t)lba * BLOCK);
    if (count != (ssize_t)file->size)
        fail("pread", errno);
}

static int on_kernel(char **words) {
    struct file file = {.descriptor = open(words[2], O_RDONLY | O_DIRECT), .size = (uint32_t)strtoul(words[3], NULL, 0)};
    file.data = aligned_alloc(PAGE, file.size);
    if (file.descriptor < 0 || file.data == NULL)
        fail(words[2], errno);
    serve(read_block, &file, file.size);
    free(file.data);
    close(file.descriptor);
    return 0;
}

int main(int count, char **words) {
    if (count == 9 && (strcmp(words[1], "read") == 0 || strcmp(words[1], "write") == 0))
        return on_usb(words);
    if (count == 4 && strcmp(words[1], "pread") == 0)
        return on_kernel(words);
    fputs("ceiling read|write LIBUSB BUS DEVICE IN OUT device|ordinary SIZE\nceiling pread NODE SIZE\n", stderr);
    return 2;
}
