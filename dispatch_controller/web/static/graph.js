// The drawing: its size, and what belongs to the task that is pointed at.
const drawing = document.getElementById("graph");

if (drawing) {
  const frame = drawing.parentElement;
  const [, , width, height] = drawing.getAttribute("viewBox").split(" ").map(Number);
  let scale = 1;

  const zoom = (wanted, x = frame.clientWidth / 2, y = frame.clientHeight / 2) => {
    const next = Math.min(2.5, Math.max(0.15, wanted));
    const factor = next / scale;
    const left = (frame.scrollLeft + x) * factor - x, top = (frame.scrollTop + y) * factor - y;
    scale = next;
    drawing.setAttribute("width", width * scale);
    drawing.setAttribute("height", height * scale);
    frame.scrollTo(left, top);
  };
  const fit = () => zoom(Math.min(1, frame.clientWidth / width, frame.clientHeight / height));

  const ways = { in: () => zoom(scale * 1.25), out: () => zoom(scale / 1.25), fit, full: () => zoom(1) };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", ways[button.dataset.zoom]);
  }
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const { left, top } = frame.getBoundingClientRect();
    zoom(scale * Math.exp(-event.deltaY / 300), event.clientX - left, event.clientY - top);
  }, { passive: false });

  const point = (id) => {
    const near = new Set(id ? [id] : []);
    for (const edge of drawing.querySelectorAll(".edges path")) {
      const { source, target } = edge.dataset;
      const touches = id !== null && (source === id || target === id);
      edge.classList.toggle("near", touches);
      if (touches) near.add(source).add(target);
    }
    for (const node of drawing.querySelectorAll(".node")) {
      node.classList.toggle("near", near.has(node.dataset.key));
    }
    drawing.classList.toggle("pointed", id !== null);
  };
  const at = (event) => event.target.closest?.(".node")?.dataset.key ?? null;
  drawing.addEventListener("pointerover", (event) => point(at(event)));
  drawing.addEventListener("pointerleave", () => point(null));
  drawing.addEventListener("focusin", (event) => point(at(event)));
  drawing.addEventListener("focusout", () => point(null));

  // What is at work is what one comes to see.
  if (width > frame.clientWidth && width * 0.6 <= frame.clientWidth) zoom(frame.clientWidth / width);
  const first = drawing.querySelector(".s-running, .s-claimed, .s-failed");
  if (first) {
    const box = first.getBoundingClientRect(), around = frame.getBoundingClientRect();
    frame.scrollTo(box.left - around.left - 80, box.top - around.top - around.height / 3);
  }
}
