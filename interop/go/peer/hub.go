package main

import (
	"bufio"
	"io"
	"log"
	"net"
	"sync"
)

// hub is the server's net.PacketConn: packets of all sessions come in through one queue, and each session has one
// queue out, shared by whichever TCP connections brought its id. Full queues drop. Unlike the worked example's it never
// forgets an id: it lives as long as a test.
type hub struct {
	noDeadlines
	listener net.Listener
	queue    int
	incoming chan labelled
	closed   chan struct{}
	mutex    sync.Mutex
	outgoing map[sessionID]chan []byte
}

type labelled struct {
	packet []byte
	from   sessionID
}

func newHub(listener net.Listener, queue int) *hub {
	h := &hub{
		listener: listener,
		queue:    queue,
		incoming: make(chan labelled, queue),
		closed:   make(chan struct{}),
		outgoing: make(map[sessionID]chan []byte),
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go h.serve(conn)
		}
	}()
	return h
}

func (h *hub) out(id sessionID) chan []byte {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	queue, ok := h.outgoing[id]
	if !ok {
		queue = make(chan []byte, h.queue)
		h.outgoing[id] = queue
	}
	return queue
}

func (h *hub) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	var id sessionID
	if _, err := io.ReadFull(in, id[:]); err != nil {
		return
	}
	n := counters.connections.Add(1)
	log.Printf("session %v: connection %d", id, n)
	readerGone := make(chan struct{})
	go func() {
		defer close(readerGone)
		for {
			packet, err := readPacket(in)
			if err != nil {
				return
			}
			select {
			case h.incoming <- labelled{packet, id}:
				counters.packetsIn.Add(1)
			default:
				counters.droppedIn.Add(1)
			}
		}
	}()
	out := h.out(id)
	var buffer []byte
	for {
		select {
		case packet := <-out:
			buffer = appendPacket(buffer[:0], packet)
			if _, err := conn.Write(buffer); err != nil {
				return
			}
		case <-readerGone:
			return
		case <-h.closed:
			return
		}
	}
}

func (h *hub) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case l := <-h.incoming:
		return copy(p, l.packet), l.from, nil
	case <-h.closed:
		return 0, nil, errClosed
	}
}

func (h *hub) WriteTo(p []byte, to net.Addr) (int, error) {
	select {
	case h.out(to.(sessionID)) <- append([]byte(nil), p...):
		counters.packetsOut.Add(1)
	default:
		counters.droppedOut.Add(1)
	}
	return len(p), nil
}

func (h *hub) LocalAddr() net.Addr { return h.listener.Addr() }
func (h *hub) Close() error        { close(h.closed); return h.listener.Close() }
