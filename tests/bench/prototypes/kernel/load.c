// Sends voice from many ports of one host, and counts the packets that arrive at its six node ports. Prints the time of
// a send. It includes the packet's whole path: the kernel passes it through every device before the call returns.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static int socket_at(const char *ip, int port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {inet_addr(ip)}};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), size = 8 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at)) perror("socket"), exit(1);
  return fd;
}

int main(int count, char **args) {
  if (count != 6) return fprintf(stderr, "load OWN PEER PEER_PORT SESSIONS PACKETS\n"), 2;
  int port = atoi(args[3]), sessions = atoi(args[4]), packets = atoi(args[5]);
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(1, &core);
  sched_setaffinity(0, sizeof core, &core);
  int *clients = malloc(sessions * sizeof *clients), nodes[6];
  for (int node = 0; node < 6; node++) nodes[node] = socket_at(args[1], 7000 + node);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {inet_addr(args[2])}};
  for (int session = 0; session < sessions; session++) {
    clients[session] = socket_at(args[1], 10000 + session);
    connect(clients[session], (struct sockaddr *)&to, sizeof to);
  }
  unsigned char packet[120] = {0x80, 111};
  double took = 0;
  long came = 0;
  for (int sent = -sessions; sent < packets; sent += 64) {
    double began = now();
    for (int place = 0; place < 64; place++) {
      unsigned number = sent + sessions + place, sequence = number / sessions;
      packet[2] = sequence >> 8, packet[3] = sequence;
      send(clients[number % sessions], packet, sizeof packet, 0);
    }
    // The first packet of each session creates its flow, and is not counted.
    if (sent >= 0) took += now() - began;
    for (int node = 0; node < 6; node++)
      for (char bytes[256]; recv(nodes[node], bytes, sizeof bytes, 0) > 0;) came += sent >= 0;
  }
  printf("%.0f ns a packet, %ld of %d came to the nodes\n", took / packets, came, packets);
}
