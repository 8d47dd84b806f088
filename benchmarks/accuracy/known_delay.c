/* A server whose every delay is known: the ground truth of the accuracy benchmark.
 *
 *   known_delay PORT TTFT_US ITL_US TOKENS LOG
 *
 * Answers POST /v1/chat/completions and /v1/completions with a stream in vLLM's dialect: the response's headers at once,
 * token k (from 0) at arrival + TTFT + k * ITL, then usage, [DONE] and the closing chunk. Also GET /health, /v1/models
 * and /version. On TERM or INT it writes LOG: one line a request,
 *   X-Request-Id,arrival_ns,write_ns of token 0,write_ns of token 1,...
 * on CLOCK_MONOTONIC. Arrival is the kernel's receive stamp of the request's last segment, a write is stamped just
 * before the call. One thread, one epoll, loopback only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { ID_BYTES = 64, READ_BYTES = 1 << 16 };

typedef struct {
    char id[ID_BYTES];
    int64_t arrival;
    int64_t *writes;
    int written;
} Request;

typedef struct {
    int fd, next, heap_at; /* next: token to write; heap_at: place in the heap, -1 when idle */
    int64_t due;
    Request *request;
    char *in;
    size_t in_len, in_cap;
} Conn;

static int64_t ttft_ns, itl_ns, wall_offset;
static int tokens, epoll_fd;
static volatile sig_atomic_t stopping;
static Request **requests;
static size_t request_count, request_cap;
static Conn **heap;
static size_t heap_len, heap_cap;

static int64_t now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t measure_wall_offset(void) {
    int64_t best = INT64_MAX, offset = 0;
    for (int i = 0; i < 1000; i++) {
        int64_t a = now(CLOCK_MONOTONIC), w = now(CLOCK_REALTIME), b = now(CLOCK_MONOTONIC);
        if (b - a < best) best = b - a, offset = w - (a + b) / 2;
    }
    return offset;
}

/* A binary heap of connections by due time. */
static void put(size_t i, Conn *c) { heap[i] = c; c->heap_at = (int)i; }

static void sift(size_t i) {
    Conn *c = heap[i];
    for (; i && heap[(i - 1) / 2]->due > c->due; i = (i - 1) / 2) put(i, heap[(i - 1) / 2]);
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap_len) break;
        if (child + 1 < heap_len && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        put(i, heap[child]);
        i = child;
    }
    put(i, c);
}

static void push(Conn *c) {
    if (heap_len == heap_cap) heap = realloc(heap, sizeof *heap * (heap_cap = heap_cap ? 2 * heap_cap : 1024));
    put(heap_len++, c);
    sift((size_t)c->heap_at);
}

static void drop(Conn *c) {
    if (c->heap_at < 0) return;
    size_t i = (size_t)c->heap_at;
    c->heap_at = -1;
    Conn *last = heap[--heap_len];
    if (last != c) { put(i, last); sift(i); }
}

static void close_conn(Conn *c) {
    drop(c);
    close(c->fd);
    free(c->in);
    free(c);
}

static int send_all(int fd, const char *data, size_t len) {
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) { usleep(50); continue; } /* a full buffer would falsify the schedule anyway */
        if (n < 0) return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static size_t chunk(char *out, const char *data, int len) {
    return (size_t)sprintf(out, "%x\r\n%.*s\r\n", len, len, data);
}

/* Writes the token that is due; after the last one the end of the stream. Returns -1 when the peer is gone. */
static int write_token(Conn *c) {
    char event[512], out[1536];
    int last = c->next == tokens - 1;
    int n = sprintf(event,
        "data: {\"id\":\"cmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"known\",\"choices\":"
        "[{\"index\":0,\"delta\":{\"content\":\" word\"},\"text\":\" word\",\"logprobs\":null,\"finish_reason\":%s}],"
        "\"usage\":{\"prompt_tokens\":16,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n",
        last ? "\"length\"" : "null", 17 + c->next, c->next + 1);
    size_t len = chunk(out, event, n);
    c->request->writes[c->next] = now(CLOCK_MONOTONIC);
    if (send_all(c->fd, out, len)) return -1;
    c->request->written = ++c->next;
    if (!last) {
        c->due += itl_ns;
        sift((size_t)c->heap_at);
        return 0;
    }
    drop(c);
    n = sprintf(event, "data: {\"id\":\"cmpl-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":16,\"total_tokens\":%d,"
                       "\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", 16 + tokens, tokens);
    len = chunk(out, event, n);
    len += (size_t)sprintf(out + len, "0\r\n\r\n");
    return send_all(c->fd, out, len);
}

static void start_stream(Conn *c, int64_t arrival, const char *head) {
    Request *r = calloc(1, sizeof *r);
    r->writes = calloc((size_t)tokens, sizeof *r->writes);
    r->arrival = arrival;
    const char *id = strcasestr(head, "\r\nx-request-id:");
    if (id) sscanf(id + 15, " %63[^\r\n]", r->id);
    if (request_count == request_cap)
        requests = realloc(requests, sizeof *requests * (request_cap = request_cap ? 2 * request_cap : 4096));
    requests[request_count++] = c->request = r;
    c->next = 0;
    c->due = arrival + ttft_ns;
    push(c);
    static const char head_out[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                                   "transfer-encoding: chunked\r\n\r\n";
    send_all(c->fd, head_out, sizeof head_out - 1);
}

static void answer(Conn *c, const char *status, const char *body) {
    char out[1024];
    int n = sprintf(out, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", status,
                    strlen(body), body);
    send_all(c->fd, out, (size_t)n);
}

/* Handles each complete request in the buffer. */
static void handle(Conn *c, int64_t arrival) {
    for (;;) {
        c->in[c->in_len] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end) return;
        size_t head = (size_t)(end - c->in) + 4, body = 0;
        *end = 0;
        const char *length = strcasestr(c->in, "\r\ncontent-length:");
        if (length) body = strtoul(length + 17, NULL, 10);
        *end = '\r';
        if (c->in_len < head + body) return;
        char keep = c->in[head];
        c->in[head] = 0;
        if (!strncmp(c->in, "POST /v1/chat/completions", 25) || !strncmp(c->in, "POST /v1/completions", 20))
            start_stream(c, arrival, c->in);
        else if (!strncmp(c->in, "GET /health", 11)) answer(c, "200 OK", "");
        else if (!strncmp(c->in, "GET /version", 12)) answer(c, "200 OK", "{\"version\":\"known-delay\"}");
        else if (!strncmp(c->in, "GET /v1/models", 14))
            answer(c, "200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"known\",\"object\":\"model\",\"owned_by\":\"vllm\","
                                "\"max_model_len\":131072}]}");
        else answer(c, "404 Not Found", "{\"detail\":\"Not Found\"}");
        c->in[head] = keep;
        c->in_len -= head + body;
        memmove(c->in, c->in + head + body, c->in_len);
    }
}

static void readable(Conn *c) {
    for (;;) {
        if (c->in_cap < c->in_len + READ_BYTES + 1) c->in = realloc(c->in, c->in_cap = c->in_len + 2 * READ_BYTES);
        char control[256];
        struct iovec io = {c->in + c->in_len, READ_BYTES};
        struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        ssize_t n = recvmsg(c->fd, &message, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { close_conn(c); return; }
        int64_t arrival = now(CLOCK_MONOTONIC);
        for (struct cmsghdr *m = CMSG_FIRSTHDR(&message); m; m = CMSG_NXTHDR(&message, m))
            if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_TIMESTAMPNS) {
                struct timespec t;
                memcpy(&t, CMSG_DATA(m), sizeof t);
                arrival = t.tv_sec * 1000000000LL + t.tv_nsec - wall_offset;
            }
        c->in_len += (size_t)n;
        handle(c, arrival);
    }
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
        if (fd < 0) return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
        Conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->heap_at = -1;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void write_log(const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) { perror(path); exit(1); }
    for (size_t i = 0; i < request_count; i++) {
        fprintf(f, "%s,%lld", requests[i]->id, (long long)requests[i]->arrival);
        for (int k = 0; k < requests[i]->written; k++) fprintf(f, ",%lld", (long long)requests[i]->writes[k]);
        fputc('\n', f);
    }
    fclose(f);
}

static void stop(int signal_number) { (void)signal_number; stopping = 1; }

int main(int argc, char **argv) {
    if (argc != 6) { fprintf(stderr, "usage: known_delay PORT TTFT_US ITL_US TOKENS LOG\n"); return 2; }
    ttft_ns = atoll(argv[2]) * 1000;
    itl_ns = atoll(argv[3]) * 1000;
    tokens = atoi(argv[4]);
    wall_offset = measure_wall_offset();
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) { perror("listen"); return 1; }
    socklen_t size = sizeof address;
    getsockname(listener, (void *)&address, &size);
    printf("listening http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_fd = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    e.data.ptr = &timer;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &e);
    struct epoll_event events[64];
    while (!stopping) {
        int64_t due = heap_len ? heap[0]->due : 0;
        struct itimerspec at = {.it_value = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        int n = epoll_wait(epoll_fd, events, 64, heap_len && due <= now(CLOCK_MONOTONIC) ? 0 : -1);
        for (int i = 0; i < n; i++) {
            if (!events[i].data.ptr) accept_all(listener);
            else if (events[i].data.ptr == &timer) { uint64_t ticks; if (read(timer, &ticks, 8) < 0) {} }
            else readable(events[i].data.ptr);
        }
        /* Few writes between two looks at the sockets, so that arrivals are not kept waiting. */
        for (int k = 0; k < 32 && heap_len && heap[0]->due <= now(CLOCK_MONOTONIC); k++) {
            Conn *c = heap[0];
            if (write_token(c)) close_conn(c);
        }
    }
    write_log(argv[5]);
    return 0;
}
