/** The texts of the panels in the language of the interface: English in the code, Chinese from the table below. */

import { app } from "../../scripts/app.js";

const CHINESE = {
  // chips
  "Words of the prompt": "提示词里的词",
  subject: "主体",
  scene: "场景",
  "not used": "不使用",
  "left out": "略去",
  "Click to leave it out.": "点击：不使用它。",
  "Click to make it a subject.": "点击：设为主体。",
  "Click to make it the scene.": "点击：设为场景。",
  "Not the main subject, so it was left out. Click to take it in.": "不是主要主体，因此略去。点击：设为主体。",
  "The override comes from another node.": "“指定”来自另一个节点。",
  "Run once, then choose the words here.": "先运行一次，再在这里选词。",
  "The prompt has changed: run to see its words.": "提示词已改变：运行后显示它的词。",
  "● subject  ▲ scene; the override comes from another node": "● 主体  ▲ 场景；“指定”来自另一个节点",
  "● subject  ▲ scene; click a word to change its role": "● 主体  ▲ 场景；点击词可改变角色",
  "● subject  ▲ scene  ○ left out; click a word to change its role": "● 主体  ▲ 场景  ○ 略去；点击词可改变角色",
  "Not in this prompt, left out: {words}.": "这段提示词里没有，已略去：{words}。",
  "Clear them": "清除",
  "Chinese words are found only where the override names them. To have them found, install jieba into ComfyUI's Python.":
    "中文词只有写在“指定”里才会使用。要自动找词，请在 ComfyUI 的 Python 里安装 jieba。",
  "Japanese words are found only where the override names them. To have them found, install janome into ComfyUI's Python.":
    "日文词只有写在“指定”里才会使用。要自动找词，请在 ComfyUI 的 Python 里安装 janome。",
  "Words of this script are found only where the override names them.": "这种文字的词只有写在“指定”里才会使用。",
  // presets
  preset: "预设",
  tight: "紧",
  normal: "标准",
  loose: "松",
  "Devaney experiment 1": "Devaney 实验 1",
  "Devaney experiment 2": "Devaney 实验 2",
  "Abs-Grad-SAM paper": "Abs-Grad-SAM 论文",
  "own values": "自定义",
  "exchange a word": "换一个词",
  "add words": "加词",
  "real picture": "真实图片",
  "Attention Couple": "Attention Couple（注意力分区）",
  "Regional Prompter": "Regional Prompter（区域提示）",
  "as published": "论文的值",
  "Writes the values of a preset into the node's inputs; only these are run and saved.":
    "把预设的值写入节点的输入；运行和保存的只有这些输入。",
  // before and after
  "Run to compare the pictures here.": "运行后在这里比较图像。",
  "The pictures of the last run are gone: run again.": "上次运行的图像已不在：请重新运行。",
  "Divider between the two pictures, in percent from the left": "两张图的分界，从左起的百分比",
  "Pictures to compare": "要比较的图像",
  reference: "参考图",
  result: "结果",
  plain: "普通图生图",
  "{left} | {right}": "{left} | {right}",
  "kept part": "保留部分",
  "whole picture": "整张图",
  divider: "分界",
  "divider {n} %": "分界 {n} %",
  // masks of a run that goes on, and the bar of its steps
  "Masks of this run": "本次运行的遮罩",
  "step {n} of {all}: {percent} % inside": "第 {n} 步，共 {all} 步：{percent} % 在遮罩内",
  mask: "遮罩",
  "heat map": "热图",
  "Steps at which the latent is replaced": "替换 Latent 的步",
  "Add a step": "添加一步",
  "The steps come from another node.": "步来自另一个节点。",
  "The steps cannot be read.": "无法读取这些步。",
  "Step numbers have no place here, as the sampler says how many steps there are; shares (15%) have.":
    "步数由采样器决定，因此步号在这里没有位置；百分比（15%）有。",
  "Drag, or arrow keys, with Shift further; Delete removes a step, or a range as a whole.":
    "拖动，或用方向键（按住 Shift 更远）；Delete 删除一步，或整个范围。",
  "No step: the latent is never replaced.": "没有步：Latent 从不替换。",
  "{value} %": "{value} %",
  "{value} %, about step {step} of {all}": "{value} %，约第 {step} 步，共 {all} 步",
  "step {value} of {all}": "第 {value} 步，共 {all} 步",
  // guide
  "Guide: Explainable Latents": "指南：可解释 Latent",
  Close: "关闭",
  // inspector
  "Run to inspect the maps here.": "运行后在这里查看热图。",
  "The maps of the last run are gone: run again.": "上次运行的热图已不在：请重新运行。",
  "The maps cannot be read: run again.": "无法读取热图：请重新运行。",
  "Place in the picture; arrow keys move it, with Shift by four cells": "画面中的位置；方向键移动一格，按住 Shift 移动四格",
  "Words, the strongest first": "词，最强的在前",
  "Save PNG": "保存 PNG",
  step: "步",
  picture: "图",
  opacity: "不透明度",
  "step {n}": "第 {n} 步",
  "all steps": "所有步",
  "picture {n} of {all}": "第 {n} 张，共 {all} 张",
  "opacity {n} %": "不透明度 {n} %",
  // mask tuner
  "Tune the mask": "调整遮罩",
  rule: "规则",
  threshold: "阈值",
  smooth: "平滑",
  window: "窗口",
  grow: "扩张",
  refine: "细化",
  Apply: "应用",
  Reset: "还原",
  "the chosen word alone": "仅所选的词",
  "This rule does not use it.": "此规则不使用它。",
  "Refining multiplies by self-attention, which is there only while the model runs: set refine on the node that captures, and run.":
    "细化要乘以自注意力，而自注意力只在模型运行时存在：请在捕获注意力的节点上设置“细化”，再运行。",
  "This step or layer has no map of the word.": "这一步（层）没有这个词的热图。",
  "The server no longer has these maps: change a setting of this node and run. Saliency Overlay makes them anew without sampling.":
    "服务器上已没有这些热图：请改变此节点的某项设置再运行。“显著图叠加”无需采样即可重新得到。",
  "These maps take more than 256 MB, too much to be tuned here: show fewer steps, words or pictures.":
    "这些热图超过 256 MB，太大，无法在这里调整：请少显示一些步、词或图。",
  "The server does not say what the mask is.": "服务器没有给出遮罩。",
  "{n} % inside.": "遮罩内占 {n} %。",
  "The outline is where the mask is one half.": "轮廓画在遮罩值为一半处。",
  "{node} is switched off.": "{node} 已停用。",
  "{node} intersects the masks of several layers.": "{node} 取几层遮罩的交集。",
  "No mask node reads these maps, so there is nothing to apply to.": "没有遮罩节点使用这些热图，因此无处应用。",
  "{node} gets {names} from another node; the outline takes what its box shows.":
    "{node} 的 {names} 来自另一个节点；轮廓按输入框里显示的值画。",
  "{node} has no Gaussian Smooth before it": "{node} 之前没有“高斯平滑”",
  "{node} has no Dilate before it": "{node} 之前没有“膨胀”",
  "{node} gets it from another node": "{node} 的这一项来自另一个节点",
  "Written to {node}: {names}.": "已写入 {node}：{names}。",
  "Not written: {name}, as {why}.": "未写入：{name}，因为{why}。",
  "Not written to {node}: another mask is shown.": "未写入 {node}：现在显示的是另一个遮罩。",
  "column {column}, row {row}: {words} (1 = the map's mean)": "第 {column} 列，第 {row} 行：{words}（1 = 该图的平均值）",
};

/** Whether the interface is in the one language that the pack has beside English. */
export const isChinese = () => app.ui.settings.getSettingValue("Comfy.Locale") === "zh";

/** The text in the language of the interface, with {names} replaced by `values`. */
export function translated(text, values = {}) {
  const found = isChinese() ? (CHINESE[text] ?? text) : text;
  return found.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
